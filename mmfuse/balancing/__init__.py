"""Balancing rules as Optax transforms: modulators, weightings, aggregators; one rule, one file.

Every name is such a transform or the state of one, but for what rules are written and fed with:
`Aggregator`, `Weighting`, `chain`, `check_contract`, `scores`, `PARTS`.
"""

from mmfuse.balancing._agm import AgmState, clip_if_head_exceeds, scale_by_agm
from mmfuse.balancing._aligned_mtl import AlignedMtlState, aggregate_by_aligned_mtl, aligned_mtl
from mmfuse.balancing._base import Aggregator, Weighting, chain
from mmfuse.balancing._bogc import BogcState, aggregate_by_bogc
from mmfuse.balancing._bogc_laplace import BogcLaplaceState, aggregate_by_bogc_laplace
from mmfuse.balancing._cagrad import CagradState, aggregate_by_cagrad
from mmfuse.balancing._contract import ContractError, check_contract
from mmfuse.balancing._double_sampling import PARTS
from mmfuse.balancing._dualproj import DualprojState, aggregate_by_dualproj, dualproj
from mmfuse.balancing._dwa import DwaState, aggregate_by_dwa, dwa
from mmfuse.balancing._excess_mtl import ExcessMtlState, aggregate_by_excess_mtl, excess_mtl
from mmfuse.balancing._fairgrad import FairgradState, aggregate_by_fairgrad, fairgrad
from mmfuse.balancing._famo import FamoState, aggregate_by_famo, famo
from mmfuse.balancing._gblending import GblendingState, aggregate_by_gblending
from mmfuse.balancing._graddrop import GradDropState, aggregate_by_graddrop, graddrop
from mmfuse.balancing._gradnorm import GradNormState, aggregate_by_gradnorm, gradnorm
from mmfuse.balancing._gradvac import GradVacState, aggregate_by_gradvac, gradvac
from mmfuse.balancing._imtl_g import ImtlGState, aggregate_by_imtl_g, imtl_g
from mmfuse.balancing._imtl_l import ImtlLState, aggregate_by_imtl_l, imtl_l
from mmfuse.balancing._mean import SumState, aggregate_by_sum
from mmfuse.balancing._mgda import MgdaState, aggregate_by_mgda
from mmfuse.balancing._mimo import MimoState, aggregate_by_mimo
from mmfuse.balancing._mmpareto import MmparetoState, aggregate_by_mmpareto
from mmfuse.balancing._moco import MocoState, aggregate_by_moco, moco
from mmfuse.balancing._modo import ModoState, aggregate_by_modo, modo
from mmfuse.balancing._mses import MsesState, scale_by_mses
from mmfuse.balancing._mslr import MslrState, scale_by_mslr
from mmfuse.balancing._nash_mtl import NashMtlState, aggregate_by_nash_mtl, nash_mtl
from mmfuse.balancing._ogm import OgmState, scale_by_ogm, scale_by_ogm_ge
from mmfuse.balancing._pcgrad import PcgradState, aggregate_by_pcgrad
from mmfuse.balancing._rlw import RlwState, aggregate_by_rlw, rlw
from mmfuse.balancing._scores import scores
from mmfuse.balancing._sdmgrad import SdmgradState, aggregate_by_sdmgrad, sdmgrad
from mmfuse.balancing._stch import StchState, aggregate_by_stch
from mmfuse.balancing._upgrad import UpgradState, aggregate_by_upgrad, upgrad
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
  "agm_light",
  "aligned_mtl",
  "bogc",
  "bogc_laplace",
  "cagrad",
  "chain",
  "check_contract",
  "clip_if_head_exceeds",
  "dualproj",
  "dwa",
  "excess_mtl",
  "fairgrad",
  "famo",
  "graddrop",
  "gradnorm",
  "gradvac",
  "imtl_g",
  "imtl_l",
  "mgda",
  "mimo",
  "mmpareto",
  "moco",
  "modo",
  "nash_mtl",
  "ogm",
  "ogm_ge",
  "pcgrad",
  "rlw",
  "scale_by_agm",
  "scale_by_mses",
  "scale_by_mslr",
  "scale_by_ogm",
  "scale_by_ogm_ge",
  "scores",
  "sdmgrad",
  "stch",
  "uniform",
  "upgrad",
  "uw",
]
