"""G-Blending: a blend of the losses that a schedule measures and writes. A weighting.

Wang, Tran, Feiszli: "What Makes Training Multi-Modal Classification Networks Hard?", CVPR 2020.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.balancing import _learned
from mmfuse.balancing._base import Weighting
from mmfuse.balancing._groups import (
  RESCALE,
  check_choice,
  check_count,
  everyone,
  rescaled,
  uniform_weights,
)


class GblendingState(NamedTuple):
  """The blend, written from the host between epochs."""

  weights: jax.Array  # [K], "fused" first, then sorted modalities; only their ratios matter


def aggregate_by_gblending(
  num_objectives: int, weights: Sequence[float] | None = None, *, rescale: str = "none"
) -> Weighting:
  r"""d = \sum_k w_k g_k with the w of `GblendingState.weights`; gradients [K, *param] -> [*param].

  The rule itself learns nothing: a training schedule measures losses at two checkpoints and writes
  its weights into the state, once (offline) or every super-epoch (online).

  Args:
    num_objectives: K = 1 + M; row 0 is the fused objective, then the sorted modalities.
    weights: [K], >= 0, to begin with; None = 1/K each. Only their ratios matter.
    rescale: "none" = they sum to 1, as published: the scale of one loss, whatever K; "sum" = they
      sum to the number of present objectives, the scale of the plain sum.

  An absent objective gets weight 0 and the others divide its share; the state never changes here.

  Raises:
    ValueError: weights of another length, negative, not finite, or all 0; an unknown option.
  """
  num_objectives = check_count(num_objectives)
  check_choice("rescale", rescale, RESCALE)
  start = None if weights is None else _checked(weights, num_objectives)

  def init_fn(params):
    del params
    return GblendingState(uniform_weights(num_objectives) if start is None else jnp.asarray(start))

  def weigh(losses, state, params=None, *, present=None, **extra_args):
    del losses, params, extra_args
    here = everyone(present, num_objectives)
    shares, _ = _learned.among(state.weights, here)
    return rescaled(shares, here, rescale), state

  return Weighting(init_fn, weigh)


def _checked(weights: Sequence[float], num_objectives: int) -> np.ndarray:
  """float32 [K] that sums to 1, or a sentence."""
  given = np.asarray(weights, np.float32)
  if given.shape != (num_objectives,):
    raise ValueError(f"weights must be {num_objectives} numbers, got shape {list(given.shape)}")
  if not np.isfinite(given).all() or (given < 0).any() or not given.sum() > 0:
    raise ValueError(f"weights must be finite, at least 0 and not all 0; got {given.tolist()}")
  return given / given.sum()
