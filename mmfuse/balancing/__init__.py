"""Balancing rules as Optax transforms: modulators, weightings, aggregators; one rule, one file."""

from mmfuse.balancing._base import Aggregator, Weighting, chain
from mmfuse.balancing._bogc import (
  BogcState,
  aggregate_by_bogc,
  evidence,
  evidence_weights,
  fuse_opinions,
)
from mmfuse.balancing._cagrad import CagradState, aggregate_by_cagrad, cagrad_weights
from mmfuse.balancing._contract import ContractError, check_contract
from mmfuse.balancing._laplace import gradient_moments, laplace_posterior, precision_weighted
from mmfuse.balancing._mean import SumState, aggregate_by_sum
from mmfuse.balancing._mgda import MgdaState, aggregate_by_mgda, mgda_weights
from mmfuse.balancing._mimo import MimoState, aggregate_by_mimo, mimo_objective
from mmfuse.balancing._min_norm import min_norm
from mmfuse.balancing._mmpareto import MmparetoState, aggregate_by_mmpareto
from mmfuse.balancing._ogm import (
  OgmState,
  discrepancy_ratios,
  ogm_coefficients,
  scale_by_ogm,
  scale_by_ogm_ge,
)
from mmfuse.balancing._pcgrad import PcgradState, aggregate_by_pcgrad, pcgrad_weights
from mmfuse.balancing._scores import scores
from mmfuse.balancing._stch import StchState, aggregate_by_stch

# The papers' names.
bogc = aggregate_by_bogc
cagrad = aggregate_by_cagrad
mgda = aggregate_by_mgda
mimo = aggregate_by_mimo
mmpareto = aggregate_by_mmpareto
ogm = scale_by_ogm
ogm_ge = scale_by_ogm_ge
pcgrad = aggregate_by_pcgrad
stch = aggregate_by_stch
uniform = aggregate_by_sum

__all__ = [
  "Aggregator",
  "BogcState",
  "CagradState",
  "ContractError",
  "MgdaState",
  "MimoState",
  "MmparetoState",
  "OgmState",
  "PcgradState",
  "StchState",
  "SumState",
  "Weighting",
  "aggregate_by_bogc",
  "aggregate_by_cagrad",
  "aggregate_by_mgda",
  "aggregate_by_mimo",
  "aggregate_by_mmpareto",
  "aggregate_by_pcgrad",
  "aggregate_by_stch",
  "aggregate_by_sum",
  "bogc",
  "cagrad",
  "cagrad_weights",
  "chain",
  "check_contract",
  "discrepancy_ratios",
  "evidence",
  "evidence_weights",
  "fuse_opinions",
  "gradient_moments",
  "laplace_posterior",
  "mgda",
  "mgda_weights",
  "mimo",
  "mimo_objective",
  "min_norm",
  "mmpareto",
  "ogm",
  "ogm_coefficients",
  "ogm_ge",
  "pcgrad",
  "pcgrad_weights",
  "precision_weighted",
  "scale_by_ogm",
  "scale_by_ogm_ge",
  "scores",
  "stch",
  "uniform",
]
