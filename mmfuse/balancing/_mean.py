"""Uniform weights: the sum or mean of all objectives, the baseline of every rule. A weighting."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing._base import Weighting
from mmfuse.balancing._groups import check_count, everyone


class SumState(NamedTuple):
  """The constant weights, so that every rule is logged alike."""

  weights: jax.Array  # [K], 1 (or 1/present) for each present objective


def aggregate_by_sum(num_objectives: int, *, mean: bool = False) -> Weighting:
  r"""Equal weights: d = \sum_k g_k over the present objectives; gradients [K, *param] -> [*param].

  Most of a balancing rule's gain over the fused loss alone is often just this sum.

  Args:
    num_objectives: K >= 1.
    mean: divide by the number of present objectives.
  """
  num_objectives = check_count(num_objectives)

  def init_fn(params):
    del params
    return SumState(jnp.ones(num_objectives, jnp.float32))

  def weigh(losses, state, params=None, *, present=None, **extra_args):
    del losses, state, params, extra_args
    weights = everyone(present, num_objectives).astype(jnp.float32)
    if mean:
      weights = weights / jnp.maximum(weights.sum(), 1.0)
    return weights, SumState(weights)

  return Weighting(init_fn, weigh)
