"""UW: each loss divided by a learned variance, its homoscedastic uncertainty. A weighting.

Kendall, Gal, Cipolla: "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
Semantics", CVPR 2018; start as in the LibMTL re-implementation.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _learned
from mmfuse.balancing._base import Weighting
from mmfuse.balancing._log_scales import log_scale_weighting


class UwState(NamedTuple):
  """Weights and the log-variances they are made of."""

  weights: jax.Array  # [K], what each loss was multiplied by
  log_variances: jax.Array  # [K], s
  opt: _learned.Adam  # Adam of each log-variance, leaves [K]


def aggregate_by_uw(
  num_objectives: int,
  *,
  start: float = -0.5,
  learning_rate: float = 0.025,
  max_weight: float = 100.0,
) -> Weighting:
  r"""Descends \sum_k L_k / (2 e^s_k) + s_k / 2: w_k = e^-s_k / 2; s descends it too.

  At rest e^s_k = L_k, hence w_k = 1 / (2 L_k): every weighted loss tends to 1/2. A loss that falls
  to 0 lets its weight grow by about a factor e^learning_rate a step, up to max_weight.

  Args:
    num_objectives: K >= 1.
    start: s at first (reference code: -.5, w = .82).
    learning_rate: of Adam on s. The paper leaves s to the network's optimiser; here it has its own,
      whose step does not depend on the size of the losses: .025, FAMO's published value.
    max_weight: > 0, bound of w, s >= -log(2 max_weight); ours, inf = none, as published. A weight
      without bound needs log(w) / learning_rate steps to come down after the loss jumps.

  Needs `losses`; the step is made with s from before it. An absent objective gets weight 0, and its
  s and Adam stay as they are.

  Raises:
    ValueError: a negative learning rate, a max_weight that is not positive.
  """
  _learned.check_max_weight(max_weight)
  least = -math.log(2.0 * max_weight)
  return log_scale_weighting(
    num_objectives,
    UwState,
    start=max(start, least),
    weight=lambda s: 0.5 * jnp.exp(-s),
    slope=lambda weighted: 0.5 - weighted,
    bound=lambda s: jnp.maximum(s, least),
    learning_rate=learning_rate,
  )


uw = aggregate_by_uw
