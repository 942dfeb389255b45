"""What weightings by learned log-scales share: a weight of each s, and an Adam that moves s."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse.balancing import _learned
from mmfuse.balancing._base import Weighting
from mmfuse.balancing._groups import check_count, everyone

Map = Callable[[jax.Array], jax.Array]


def log_scale_weighting(
  num_objectives: int,
  make_state: Callable[[jax.Array, jax.Array, _learned.Adam], Any],
  *,
  start: float,
  weight: Map,
  slope: Map,
  bound: Map,
  learning_rate: float,
) -> Weighting:
  """w = weight(s); s <- bound(s - Adam(slope(w L))), with s from before the step in w.

  Args:
    num_objectives: K >= 1.
    make_state: (weights [K], s [K], Adam) -> the state, a tuple in this order.
    start: s at first.
    weight: s -> w, elementwise.
    slope: weighted losses w L -> the derivative of the objective by s.
    bound: keeps s where w is at most its bound.
    learning_rate: of Adam on s, >= 0.

  An absent objective gets weight 0, and its s and Adam stay as they are.

  Raises:
    TypeError, ValueError: a bad number of objectives, a negative learning rate.
  """
  num_objectives = check_count(num_objectives)
  _learned.check_rate("learning_rate", learning_rate)

  def init_fn(params):
    del params
    s = jnp.full(num_objectives, start, jnp.float32)
    return make_state(weight(s), s, _learned.init_adam(num_objectives))

  def weigh(losses, state, params=None, *, present=None, **extra_args):
    del params, extra_args
    here = everyone(present, num_objectives)
    _, s, opt = state
    raw = weight(s)
    moved, opt = _learned.descend(
      s, slope(raw * losses.astype(jnp.float32)), opt, here, learning_rate
    )
    weights = jnp.where(here, raw, 0.0)
    return weights, make_state(weights, bound(moved), opt)

  return Weighting(init_fn, weigh)
