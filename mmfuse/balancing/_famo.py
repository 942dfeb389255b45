"""FAMO: weights under which all log-losses fall at the same rate, from losses alone. A weighting.

Liu, Feng, Stone, Liu: "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups, _learned
from mmfuse.balancing._base import Weighting

_EPS = 1e-8  # added to the losses, as in the released code


class FamoState(NamedTuple):
  """Weights, their logits, and the losses before the update."""

  weights: jax.Array  # [K], what each loss was multiplied by
  logits: jax.Array  # [K], z = softmax(logits)
  before: jax.Array  # [K], losses of the last batch before the update
  present: jax.Array  # bool [K], objectives of that batch
  opt: _learned.Adam  # Adam of each logit, leaves [K]


def aggregate_by_famo(
  num_objectives: int,
  *,
  learning_rate: float = 0.025,
  weight_decay: float = 1e-3,
  floor: float = 0.0,
  rescale: str = "none",
) -> Weighting:
  r"""w_k = (z_k / D_k) / \sum_j z_j / D_j, D = L - floor + 1e-8, z = softmax(logits).

  After the update the same batch gives D', and Adam moves the logits along J^T (log D - log D'), J
  the Jacobian of the softmax: objectives that fell less gain weight. One more forward pass a step
  (`after`); without it the logits stay 0.

  Args:
    num_objectives: K >= 1.
    learning_rate: of Adam on the logits, >= 0 (released code: .025).
    weight_decay: added to their gradient, not decoupled, >= 0 (released code: .001).
    floor: lower bound of the losses, in nats (released code: 0). Losses below it are taken as it.
    rescale: "none" = convex, as published; "sum" = times the number of present objectives.

  Needs `losses`. An absent objective gets weight 0 and is left out of the softmax; its logit and
  Adam stay as they are.

  Raises:
    ValueError: a negative rate or decay, an unknown option.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("rescale", rescale, _groups.RESCALE)
  _learned.check_rate("learning_rate", learning_rate)
  _learned.check_rate("weight_decay", weight_decay)

  def above_floor(losses):
    return jnp.maximum(losses.astype(jnp.float32) - floor, 0.0) + _EPS

  def init_fn(params):
    del params
    zeros = jnp.zeros(num_objectives, jnp.float32)
    uniform = _groups.uniform_weights(num_objectives)
    here = jnp.zeros(num_objectives, bool)  # no batch seen: nothing to compare with
    return FamoState(uniform, zeros, zeros, here, _learned.init_adam(num_objectives))

  def weigh(losses, state, params=None, *, present=None, **extra_args):
    del params, extra_args
    here = _groups.everyone(present, num_objectives)
    raw = _learned.softmax(state.logits, here) / above_floor(losses)
    convex = raw / jnp.where(here.any(), raw.sum(), 1.0)
    weights = _groups.rescaled(convex, here, rescale)
    return weights, state._replace(weights=weights, before=losses.astype(jnp.float32), present=here)

  def after(losses, state):
    here = state.present
    z = _learned.softmax(state.logits, here)
    fall = jnp.log(above_floor(state.before)) - jnp.log(above_floor(losses))
    fall = jnp.where(here, fall, 0.0)
    slope = z * (fall - jnp.sum(z * fall))
    logits, opt = _learned.descend(
      state.logits, slope, state.opt, here, learning_rate, weight_decay
    )
    return state._replace(logits=logits, opt=opt)

  return Weighting(init_fn, weigh, after)


famo = aggregate_by_famo
