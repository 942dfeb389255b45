"""MMCosine: the joint loss of a model whose fused head compares directions.

Xu, Feng, Zhang and Hu, MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual
Fine-Grained Learning, ICASSP 2023. The head is in `fusion/_cosine.py`.
"""

from typing import Any

import optax

from mmfuse import fusion, objectives, train
from mmfuse.core import Method
from mmfuse.fusion._cosine import Cosine


def mmcosine(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  scale: float = 15.0,
) -> Method:
  r"""CE(\sum_m scale cos(h_m, W_m)): `model` with its fusion replaced by `Cosine(scale)`.

  Any number of modalities; classification and multi-label (the logits are bounded by M scale, so
  regression is not defined).

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    scale: default 15 (BalanceBenchmark).

  Raises:
    Unavailable: the model is not a `LateFusion`, whose fusion can be replaced.
    ValueError: a scale that is not positive.
  """
  if scale <= 0:
    raise ValueError(f"scale must be positive, got {scale}")
  model = fusion.with_fusion(model, Cosine(scale), "mmcosine")
  return train.supervised(model, objectives.fused, tx)
