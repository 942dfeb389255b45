"""Fusion modules by name."""

import flax.linen as nn

from mmfuse.fusion._attend_sum import Attention
from mmfuse.fusion._bottleneck import Bottleneck
from mmfuse.fusion._concat import Concat
from mmfuse.fusion._confidence import Confidence
from mmfuse.fusion._cosine import Cosine
from mmfuse.fusion._deep_set import DeepSet
from mmfuse.fusion._early import Early
from mmfuse.fusion._experts import ProductOfExperts
from mmfuse.fusion._gated import FiLM, Gated
from mmfuse.fusion._gaussian import GaussianProduct
from mmfuse.fusion._low_rank import LowRank
from mmfuse.fusion._mixture import MixtureOfExperts
from mmfuse.fusion._mmtm import Mmtm
from mmfuse.fusion._mult import MulT
from mmfuse.fusion._multiplicative import Multiplicative
from mmfuse.fusion._nl_gate import NLGate
from mmfuse.fusion._perceiver import Perceiver
from mmfuse.fusion._stack import Stack
from mmfuse.fusion._sum import Sum
from mmfuse.fusion._tensor import Tensor
from mmfuse.names import closest

FUSIONS: dict[str, type[nn.Module]] = {
  "concat": Concat,
  "early": Early,
  "sum": Sum,
  "stack": Stack,
  "gated": Gated,
  "film": FiLM,
  "multiplicative": Multiplicative,
  "low_rank": LowRank,
  "tensor": Tensor,
  "nl_gate": NLGate,
  "mult": MulT,
  "bottleneck": Bottleneck,
  "perceiver": Perceiver,
  "product_of_experts": ProductOfExperts,
  "gaussian_product": GaussianProduct,
  "mixture_of_experts": MixtureOfExperts,
  "confidence": Confidence,
  "attention": Attention,
  "deep_set": DeepSet,
  "cosine": Cosine,
  "mmtm": Mmtm,
}


def head_named(spec: str) -> nn.Module:
  """The fusion called `spec`, one of `FUSIONS`. Raises ValueError naming the closest."""
  if spec not in FUSIONS:
    raise ValueError(f"unknown fusion {spec!r}; {closest(spec, FUSIONS)}")
  return FUSIONS[spec]()
