"""PCGrad: each gradient loses what points against the others, then all are summed. An aggregator.

Yu, Kumar, Gupta, Levine, Hausman, Finn: "Gradient Surgery for Multi-Task Learning", NeurIPS 2020.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator

_RESCALE = ("sum", "mean")


class PcgradState(NamedTuple):
  """What the projections came to last."""

  weights: jax.Array  # [K], multiplier of each original gradient in the direction


def pcgrad_weights(
  gram: jax.Array, order: jax.Array, present: jax.Array | None = None
) -> jax.Array:
  r"""Multipliers [K] of the original gradients in \sum_i p_i, where p_i = \sum_k c_ik g_k.

  For j in order[i]: where p_i . g_j < 0, p_i -= (p_i . g_j) / (|g_j|^2 + 1e-8) g_j, with the
  original g_j. Projecting on itself is harmless. Only A = G G^T is needed.

  Args:
    gram: A [K, K].
    order: int [K, K], row i is the order in which objective i meets the others.
    present: bool [K]; absent objectives neither project nor contribute.
  """
  num = gram.shape[0]
  here = _groups.everyone(present, num)
  gram = jnp.where(here[:, None] & here[None, :], gram, 0.0).astype(jnp.float32)
  coefficients = jnp.diag(here.astype(jnp.float32))
  for t in range(num):
    other = order[:, t]
    product = jnp.sum(coefficients * gram[other], axis=1)
    shift = jnp.minimum(product, 0.0) / (gram[other, other] + 1e-8)
    coefficients = coefficients - shift[:, None] * jax.nn.one_hot(other, num, dtype=jnp.float32)
  return coefficients.sum(0)


def random_order(key: jax.Array, num_objectives: int) -> jax.Array:
  """An independent permutation per objective, int32 [K, K]."""
  rows = jnp.tile(jnp.arange(num_objectives, dtype=jnp.int32), (num_objectives, 1))
  return jax.random.permutation(key, rows, axis=1, independent=True)


def _turns(rows: tuple[int, ...], key: jax.Array | None, order: jax.Array | None) -> jax.Array:
  """The order within a group of objectives: the given one less the others, or a drawn one."""
  if order is not None:
    index = jnp.array(rows)
    return jnp.argsort(jnp.argsort(jnp.asarray(order), axis=1)[jnp.ix_(index, index)], axis=1)
  if len(rows) > 2 and key is not None:
    return random_order(key, len(rows))
  return jnp.tile(jnp.arange(len(rows), dtype=jnp.int32), (len(rows), 1))


def aggregate_by_pcgrad(
  num_objectives: int, *, scope: str = "global", rescale: str = "sum"
) -> Aggregator:
  r"""d = \sum_i p_i, p_i = g_i minus its components against each conflicting g_j.

  Gradients [K, *param] -> [*param]. Without conflict it is the uniform sum. K <= 2 does not depend
  on the order; K >= 3 draws one from `key`, or takes `order` [K, K] as an extra argument.

  Args:
    num_objectives: K >= 1.
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest. Needs owners.
    rescale: "sum" as published; "mean" divides by the number of present objectives.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: an unknown option, gradients of another K.
    TypeError: K >= 3 and neither `key` nor `order`.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("scope", scope, _groups.SCOPES)
  _groups.check_choice("rescale", rescale, _RESCALE)

  def init_fn(params):
    del params
    return PcgradState(jnp.ones(num_objectives, jnp.float32))

  def update_fn(
    updates, state, params=None, *, key=None, order=None, owners=None, present=None, **extra_args
  ):
    del state, params, extra_args
    _groups.check_stacked(updates, num_objectives)
    if num_objectives > 2 and key is None and order is None:
      raise TypeError(
        "PCGrad with 3 or more objectives needs the extra argument key= (or order= [K, K])"
      )

    def weigh(gram, rows, here):
      weights = pcgrad_weights(gram, _turns(rows, key, order), here)
      return weights / jnp.maximum(here.sum(), 1) if rescale == "mean" else weights

    direction, weights = _groups.aggregate(
      weigh, updates, owners, _groups.everyone(present, num_objectives), scope
    )
    return direction, PcgradState(weights)

  return Aggregator(init_fn, update_fn)
