"""Fusion: from features per modality to one set of logits.

A fusion is a Linen module called as `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes,
train) -> (logits [B, C], split {m: [B, C]} or None)`; absent rows of the features are zero.
"""

from mmfuse.fusion._attend_sum import Attention
from mmfuse.fusion._average import mean_logits
from mmfuse.fusion._bottleneck import Bottleneck
from mmfuse.fusion._concat import Concat, split_concat
from mmfuse.fusion._confidence import Confidence
from mmfuse.fusion._cosine import Cosine, cosine_logits
from mmfuse.fusion._deep_set import DeepSet
from mmfuse.fusion._dense import DenseFusion, joined
from mmfuse.fusion._early import Early
from mmfuse.fusion._expert_head import ExpertHead
from mmfuse.fusion._esanet import ESANet
from mmfuse.fusion._experts import ProductOfExperts, combine_experts, mix_experts
from mmfuse.fusion._fill import Fill
from mmfuse.fusion._gated import FiLM, Gated
from mmfuse.fusion._gaussian import GaussianProduct, gaussian_product
from mmfuse.fusion._gaussian_head import Gaussian, GaussianHead, draw_gaussian
from mmfuse.fusion._late import LateFusion
from mmfuse.fusion._linen import from_linen
from mmfuse.fusion._low_rank import LowRank
from mmfuse.fusion._mixture import MixtureOfExperts
from mmfuse.fusion._mmtm import Mmtm
from mmfuse.fusion._mult import MulT
from mmfuse.fusion._multiplicative import Multiplicative
from mmfuse.fusion._names import FUSIONS, head_named
from mmfuse.fusion._nl_gate import NLGate
from mmfuse.fusion._perceiver import Perceiver
from mmfuse.fusion._stack import Stack
from mmfuse.fusion._sum import Sum
from mmfuse.fusion._tensor import Tensor
from mmfuse.fusion._trunk import Trunk
from mmfuse.fusion._with_fusion import with_fusion

__all__ = [
  "FUSIONS",
  "Attention",
  "Bottleneck",
  "Concat",
  "Confidence",
  "Cosine",
  "DeepSet",
  "DenseFusion",
  "ESANet",
  "Early",
  "ExpertHead",
  "FiLM",
  "Fill",
  "Gated",
  "Gaussian",
  "GaussianHead",
  "GaussianProduct",
  "LateFusion",
  "LowRank",
  "MixtureOfExperts",
  "Mmtm",
  "MulT",
  "Multiplicative",
  "NLGate",
  "Perceiver",
  "ProductOfExperts",
  "Stack",
  "Sum",
  "Tensor",
  "Trunk",
  "combine_experts",
  "cosine_logits",
  "draw_gaussian",
  "from_linen",
  "gaussian_product",
  "head_named",
  "joined",
  "mean_logits",
  "mix_experts",
  "split_concat",
  "with_fusion",
]
