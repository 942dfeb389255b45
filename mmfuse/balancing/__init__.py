"""Balancing rules as Optax transforms: modulators, weightings, aggregators; one rule, one file."""

from mmfuse.balancing._agm import (
  AgmState,
  agm_coefficients,
  agm_ratios,
  agm_scores,
  clip_if_head_exceeds,
  scale_by_agm,
  shapley_logits,
)
from mmfuse.balancing._aligned_mtl import (
  AlignedMtlState,
  aggregate_by_aligned_mtl,
  aligned_mtl,
  aligned_mtl_weights,
)
from mmfuse.balancing._base import Aggregator, Weighting, chain
from mmfuse.balancing._bogc import (
  BogcState,
  aggregate_by_bogc,
  evidence,
  evidence_weights,
  fuse_opinions,
)
from mmfuse.balancing._bogc_laplace import BogcLaplaceState, aggregate_by_bogc_laplace
from mmfuse.balancing._cagrad import CagradState, aggregate_by_cagrad, cagrad_weights
from mmfuse.balancing._contract import ContractError, check_contract
from mmfuse.balancing._double_sampling import PARTS
from mmfuse.balancing._dualproj import (
  DualprojState,
  aggregate_by_dualproj,
  dualproj,
  dualproj_weights,
)
from mmfuse.balancing._dwa import DwaState, aggregate_by_dwa, dwa
from mmfuse.balancing._excess_mtl import (
  ExcessMtlState,
  aggregate_by_excess_mtl,
  excess_mtl,
  excess_risks,
)
from mmfuse.balancing._fairgrad import (
  FairgradState,
  aggregate_by_fairgrad,
  fairgrad,
  fairgrad_weights,
)
from mmfuse.balancing._famo import FamoState, aggregate_by_famo, famo
from mmfuse.balancing._gblending import (
  Blend,
  GblendingState,
  aggregate_by_gblending,
  gblending,
  gblending_weights,
)
from mmfuse.balancing._graddrop import (
  GradDropState,
  aggregate_by_graddrop,
  graddrop,
  sign_mask,
  sign_purity,
)
from mmfuse.balancing._gradnorm import GradNormState, aggregate_by_gradnorm, gradnorm, gradnorm_loss
from mmfuse.balancing._gradvac import GradVacState, aggregate_by_gradvac, gradvac, gradvac_weights
from mmfuse.balancing._imtl_g import ImtlGState, aggregate_by_imtl_g, imtl_g, imtl_g_weights
from mmfuse.balancing._imtl_l import ImtlLState, aggregate_by_imtl_l, imtl_l
from mmfuse.balancing._laplace import gradient_moments, laplace_posterior, precision_weighted
from mmfuse.balancing._mean import SumState, aggregate_by_sum
from mmfuse.balancing._mgda import MgdaState, aggregate_by_mgda, mgda_weights
from mmfuse.balancing._mimo import MimoState, aggregate_by_mimo, mimo_objective
from mmfuse.balancing._min_norm import min_norm
from mmfuse.balancing._mmpareto import MmparetoState, aggregate_by_mmpareto
from mmfuse.balancing._moco import MocoState, aggregate_by_moco, moco
from mmfuse.balancing._modo import ModoState, aggregate_by_modo, modo
from mmfuse.balancing._mses import MsesState, mses_state, scale_by_mses
from mmfuse.balancing._mslr import MslrState, mslr_state, scale_by_mslr
from mmfuse.balancing._nash_mtl import (
  NashMtlState,
  aggregate_by_nash_mtl,
  nash_mtl,
  nash_mtl_weights,
)
from mmfuse.balancing._ogm import (
  OgmState,
  discrepancy_ratios,
  ogm_coefficients,
  scale_by_ogm,
  scale_by_ogm_ge,
)
from mmfuse.balancing._pcgrad import PcgradState, aggregate_by_pcgrad, pcgrad_weights
from mmfuse.balancing._rlw import RlwState, aggregate_by_rlw, rlw
from mmfuse.balancing._scores import scores
from mmfuse.balancing._sdmgrad import SdmgradState, aggregate_by_sdmgrad, sdmgrad, sdmgrad_shares
from mmfuse.balancing._stch import StchState, aggregate_by_stch
from mmfuse.balancing._upgrad import UpgradState, aggregate_by_upgrad, upgrad, upgrad_weights
from mmfuse.balancing._uw import UwState, aggregate_by_uw, uw

# The papers' names.
agm_light = scale_by_agm
bogc = aggregate_by_bogc
bogc_laplace = aggregate_by_bogc_laplace
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
  "PARTS",
  "Aggregator",
  "AgmState",
  "AlignedMtlState",
  "Blend",
  "BogcLaplaceState",
  "BogcState",
  "CagradState",
  "ContractError",
  "DualprojState",
  "DwaState",
  "ExcessMtlState",
  "FairgradState",
  "FamoState",
  "GblendingState",
  "GradDropState",
  "GradNormState",
  "GradVacState",
  "ImtlGState",
  "ImtlLState",
  "MgdaState",
  "MimoState",
  "MmparetoState",
  "MocoState",
  "ModoState",
  "MsesState",
  "MslrState",
  "NashMtlState",
  "OgmState",
  "PcgradState",
  "RlwState",
  "SdmgradState",
  "StchState",
  "SumState",
  "UpgradState",
  "UwState",
  "Weighting",
  "aggregate_by_aligned_mtl",
  "aggregate_by_bogc",
  "aggregate_by_bogc_laplace",
  "aggregate_by_cagrad",
  "aggregate_by_dualproj",
  "aggregate_by_dwa",
  "aggregate_by_excess_mtl",
  "aggregate_by_fairgrad",
  "aggregate_by_famo",
  "aggregate_by_gblending",
  "aggregate_by_graddrop",
  "aggregate_by_gradnorm",
  "aggregate_by_gradvac",
  "aggregate_by_imtl_g",
  "aggregate_by_imtl_l",
  "aggregate_by_mgda",
  "aggregate_by_mimo",
  "aggregate_by_mmpareto",
  "aggregate_by_moco",
  "aggregate_by_modo",
  "aggregate_by_nash_mtl",
  "aggregate_by_pcgrad",
  "aggregate_by_rlw",
  "aggregate_by_sdmgrad",
  "aggregate_by_stch",
  "aggregate_by_sum",
  "aggregate_by_upgrad",
  "aggregate_by_uw",
  "agm_coefficients",
  "agm_light",
  "agm_ratios",
  "agm_scores",
  "aligned_mtl",
  "aligned_mtl_weights",
  "bogc",
  "bogc_laplace",
  "cagrad",
  "cagrad_weights",
  "chain",
  "check_contract",
  "clip_if_head_exceeds",
  "discrepancy_ratios",
  "dualproj",
  "dualproj_weights",
  "dwa",
  "evidence",
  "evidence_weights",
  "excess_mtl",
  "excess_risks",
  "fairgrad",
  "fairgrad_weights",
  "famo",
  "fuse_opinions",
  "gblending",
  "gblending_weights",
  "graddrop",
  "gradient_moments",
  "gradnorm",
  "gradnorm_loss",
  "gradvac",
  "gradvac_weights",
  "imtl_g",
  "imtl_g_weights",
  "imtl_l",
  "laplace_posterior",
  "mgda",
  "mgda_weights",
  "mimo",
  "mimo_objective",
  "min_norm",
  "mmpareto",
  "moco",
  "modo",
  "mses_state",
  "mslr_state",
  "nash_mtl",
  "nash_mtl_weights",
  "ogm",
  "ogm_coefficients",
  "ogm_ge",
  "pcgrad",
  "pcgrad_weights",
  "precision_weighted",
  "rlw",
  "scale_by_agm",
  "scale_by_mses",
  "scale_by_mslr",
  "scale_by_ogm",
  "scale_by_ogm_ge",
  "scores",
  "sdmgrad",
  "sdmgrad_shares",
  "shapley_logits",
  "sign_mask",
  "sign_purity",
  "stch",
  "uniform",
  "upgrad",
  "upgrad_weights",
  "uw",
]
