"""RLW: weights drawn anew at every step, the litmus test of a weighting. A weighting.

Lin, Ye, Zhang, Tsang: "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
Learning", TMLR 2022.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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


class RlwState(NamedTuple):
  """The weights drawn last."""

  weights: jax.Array  # [K], what each loss was multiplied by


def aggregate_by_rlw(num_objectives: int, *, rescale: str = "none") -> Weighting:
  r"""w = softmax(z), z ~ N(0, I), drawn anew at every step; gradients [K, *param] -> [*param].

  In expectation the mean of the objectives. A rule that does not beat it has learned nothing.

  Args:
    num_objectives: K >= 1.
    rescale: "none" = convex, as published; "sum" = times the number of present objectives.

  Needs `key`. An absent objective gets weight 0 and is left out of the softmax; there is no state
  to keep.

  Raises:
    ValueError: an unknown option.
  """
  num_objectives = check_count(num_objectives)
  check_choice("rescale", rescale, RESCALE)

  def init_fn(params):
    del params
    return RlwState(uniform_weights(num_objectives))

  def weigh(losses, state, params=None, *, key, present=None, **extra_args):
    del losses, state, params, extra_args
    here = everyone(present, num_objectives)
    drawn = jax.random.normal(key, (num_objectives,), jnp.float32)
    weights = rescaled(_learned.softmax(drawn, here), here, rescale)
    return weights, RlwState(weights)

  return Weighting(init_fn, weigh)


rlw = aggregate_by_rlw
