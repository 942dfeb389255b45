"""G-Blending: weights from generalisation gained per squared overfitting. A weighting.

Wang, Tran, Feiszli: "What Makes Training Multi-Modal Classification Networks Hard?", CVPR 2020.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

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

_VARIANTS = ("paper", "released")
_FLOOR = 1e-6  # of |O|, in nats: below it a change of overfitting is rounding


class Blend(NamedTuple):
  """What `gblending_weights` found."""

  weights: jax.Array  # [K], sum 1
  gain: jax.Array  # [K], G: fall of the validation loss, nats
  overfitting: jax.Array  # [K], O: growth of the gap between validation and training loss, nats


class GblendingState(NamedTuple):
  """The blend, written from the host between epochs."""

  weights: jax.Array  # [K], "fused" first, then sorted modalities; only their ratios matter


def gblending_weights(
  train0: Any, val0: Any, train1: Any, val1: Any, *, variant: str = "paper"
) -> Blend:
  r"""w_k = (G_k / O_k^2) / Z from losses [K] at two checkpoints, 0 and 1.

  G = val0 - val1 and O = (val1 - train1) - (val0 - train0): the convex blend with the smallest
  ratio of overfitting to generalisation, where the objectives overfit independently.

  Args:
    train0, val0: mean losses [K] at the first checkpoint, nats, each objective trained alone.
    train1, val1: the same at the second.
    variant: "paper"; "released": |G| / O^2, the form of a public re-implementation, which also
      rewards an objective that got worse (it takes sums over batches for the losses).

  Guards: G < 0 gives weight 0 ("paper"); |O| counts as at least 1e-6, so that an objective that
  generalises without overfitting takes nearly all; no positive weight at all gives 1/K each.

  Raises:
    ValueError: an unknown variant, losses of different shapes.
  """
  check_choice("variant", variant, _VARIANTS)
  shapes = [np.shape(x) for x in (train0, val0, train1, val1)]
  if len(set(shapes)) > 1 or len(shapes[0]) != 1:
    raise ValueError(f"the four losses must be arrays of one length K, got shapes {shapes}")
  train0, val0, train1, val1 = (jnp.asarray(x, float) for x in (train0, val0, train1, val1))
  gain = val0 - val1
  overfitting = (val1 - train1) - (val0 - train0)
  worth = jnp.abs(gain) if variant == "released" else jnp.maximum(gain, 0.0)
  raw = worth / jnp.maximum(jnp.abs(overfitting), _FLOOR) ** 2
  total = raw.sum()
  weights = jnp.where(total > 0, raw / jnp.where(total > 0, total, 1.0), 1.0 / raw.shape[0])
  return Blend(weights, gain, overfitting)


def aggregate_by_gblending(
  num_objectives: int, weights: Sequence[float] | None = None, *, rescale: str = "none"
) -> Weighting:
  r"""d = \sum_k w_k g_k with the w of `GblendingState.weights`; gradients [K, *param] -> [*param].

  The rule itself learns nothing: a training schedule measures losses at two checkpoints and writes
  `gblending_weights` into the state, once (offline) or every super-epoch (online).

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


gblending = aggregate_by_gblending
