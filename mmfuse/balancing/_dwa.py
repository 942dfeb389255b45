"""DWA: more weight to losses that fell less over the last two epochs. A weighting.

Liu, Johns, Davison: "End-to-End Multi-Task Learning with Attention", CVPR 2019.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _learned
from mmfuse.balancing._base import Weighting
from mmfuse.balancing._groups import check_count, everyone


class DwaState(NamedTuple):
  """Weights, the epoch under way and the means of the two before it."""

  weights: jax.Array  # [K], what each loss was multiplied by
  last: jax.Array  # [K], mean loss of the last finished epoch; 0 = none yet
  older: jax.Array  # [K], mean loss of the one before; 0 = none yet
  total: jax.Array  # [K], sum of the losses of the epoch under way
  batches: jax.Array  # [K], its batches in which the objective was present
  epoch: jax.Array  # int32, the epoch under way


def _turn(state: DwaState) -> DwaState:
  """The epoch under way becomes the last; an objective it never saw keeps its means."""
  seen = state.batches > 0
  mean = state.total / jnp.maximum(state.batches, 1.0)
  zeros = jnp.zeros_like(mean)
  return state._replace(
    last=jnp.where(seen, mean, state.last),
    older=jnp.where(seen, state.last, state.older),
    total=zeros,
    batches=zeros,
  )


def aggregate_by_dwa(num_objectives: int, temperature: float = 2.0) -> Weighting:
  r"""w_k = K softmax(r / temperature)_k, r_k = L_k(e - 1) / L_k(e - 2), epoch means of the losses.

  Epochs 0 and 1 have weights 1: the ratio of an objective without two finished epochs is 1. K and
  the softmax are of the present objectives.

  Args:
    num_objectives: K >= 1.
    temperature: > 0 (paper: 2). A large one is the plain sum.

  Needs `losses` and `clock` (its `epoch`; a new one ends the means of the old). An absent objective
  gets weight 0, and its means stay as they are. A mean that is not positive gives the ratio 1.

  Raises:
    ValueError: a temperature that is not positive.
  """
  num_objectives = check_count(num_objectives)
  if not temperature > 0:
    raise ValueError(f"temperature must be positive, got {temperature}")

  def init_fn(params):
    del params
    zeros = jnp.zeros(num_objectives, jnp.float32)
    ones = jnp.ones(num_objectives, jnp.float32)
    return DwaState(ones, zeros, zeros, zeros, zeros, jnp.zeros((), jnp.int32))

  def weigh(losses, state, params=None, *, clock, present=None, **extra_args):
    del params, extra_args
    here = everyone(present, num_objectives)
    new_epoch = clock.epoch != state.epoch
    state = jax.tree.map(lambda a, b: jnp.where(new_epoch, a, b), _turn(state), state)
    known = (state.older > 0) & (state.last > 0)
    ratios = jnp.where(known, state.last / jnp.where(known, state.older, 1.0), 1.0)
    weights = here.sum() * _learned.softmax(ratios / temperature, here)
    return weights, state._replace(
      weights=weights,
      total=state.total + jnp.where(here, losses.astype(jnp.float32), 0.0),
      batches=state.batches + here.astype(jnp.float32),
      epoch=jnp.asarray(clock.epoch, jnp.int32),
    )

  return Weighting(init_fn, weigh)


dwa = aggregate_by_dwa
