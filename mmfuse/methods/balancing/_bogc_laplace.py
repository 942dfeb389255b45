"""BOGC on features: the last layers' Laplace posteriors say how far each gradient is trusted.

Guo et al., arXiv 2505.23071, 2025. The rule stands in `balancing/_bogc_laplace.py`.
"""

from typing import Any

from mmfuse import balancing, fusion
from mmfuse.core import Method, Unavailable
from mmfuse.methods._made import of_rule, with_options

_ruled = of_rule(balancing.bogc_laplace, 1, "features")


def _linear(model: Any, tx, **options) -> Method:
  """`_ruled`, of models whose fused head is linear."""
  fused = getattr(model, "fusion", None)
  if not isinstance(fused, fusion.Concat | fusion.Sum):
    raise Unavailable(
      "its posterior is that of linear last layers: needs the fusion concat or sum, "
      f"got {type(fused).__name__}"
    )
  return _ruled(model, tx, **options)


on_features = with_options(_linear, _ruled, without=())
