"""IMTL-L: learned scales that bring every loss to the same size. A weighting.

Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang: "Towards Impartial Multi-task Learning", ICLR 2021,
the part on losses (its part on gradients is IMTL-G).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _learned
from mmfuse.balancing._base import Weighting
from mmfuse.balancing._log_scales import log_scale_weighting


class ImtlLState(NamedTuple):
  """Weights and the log-scales they are made of."""

  weights: jax.Array  # [K], what each loss was multiplied by
  log_scales: jax.Array  # [K], s
  opt: _learned.Adam  # Adam of each log-scale, leaves [K]


def aggregate_by_imtl_l(
  num_objectives: int, *, learning_rate: float = 0.025, max_weight: float = 100.0
) -> Weighting:
  r"""Descends \sum_k e^s_k L_k - s_k: w_k = e^s_k; s descends it too, from 0.

  At rest w_k = 1 / L_k: every weighted loss is 1. A loss that falls to 0 lets its weight grow by
  about a factor e^learning_rate a step, up to max_weight.

  Args:
    num_objectives: K >= 1.
    learning_rate: of Adam on s. The paper leaves s to the network's optimiser; here it has its own,
      whose step does not depend on the size of the losses: .025, FAMO's published value.
    max_weight: > 0, bound of w, s <= log(max_weight); ours, inf = none, as published. A weight
      without bound needs log(w) / learning_rate steps to come down after the loss jumps.

  Needs `losses`; the step is made with s from before it. An absent objective gets weight 0, and its
  s and Adam stay as they are.

  Raises:
    ValueError: a negative learning rate, a max_weight that is not positive.
  """
  _learned.check_max_weight(max_weight)
  most = math.log(max_weight)
  return log_scale_weighting(
    num_objectives,
    ImtlLState,
    start=min(0.0, most),
    weight=jnp.exp,
    slope=lambda weighted: weighted - 1.0,
    bound=lambda s: jnp.minimum(s, most),
    learning_rate=learning_rate,
  )


imtl_l = aggregate_by_imtl_l
