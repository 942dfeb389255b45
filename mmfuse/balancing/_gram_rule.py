"""What rules that read only the Gram matrix share: unit gradients, scale, length, aggregator."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator

_TINY = 1e-30  # a squared norm below this counts as a zero gradient


def unit_gram(gram: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(cosines C [K, K], norms [K], moving [K]) of A [K, K]; C_ij = A_ij / (n_i n_j).

  `moving`: present and not zero. The other rows of C are those of the identity and their norm is 1,
  so that they neither couple nor divide by zero.
  """
  gram = gram.astype(jnp.float32)
  squares = jnp.diagonal(gram)
  moving = present & (squares > _TINY)
  norms = jnp.sqrt(jnp.where(moving, squares, 1.0))
  both = moving[:, None] & moving[None, :]
  identity = jnp.eye(gram.shape[0], dtype=jnp.float32)
  cosines = jnp.where(both, gram / norms[:, None] / norms[None, :], 0.0)
  return jnp.where(identity > 0, 1.0, cosines), norms, moving


def sum_to_count(weights: jax.Array, present: jax.Array) -> jax.Array:
  """Weights [K] scaled to sum to the number of present objectives, as those of the plain sum do."""
  total = weights.sum()
  # A sum that is rounding only says nothing about scale.
  usable = total > 1e-6 * jnp.abs(weights).sum()
  return weights * jnp.where(usable, present.sum() / jnp.where(usable, total, 1.0), 1.0)


def shorten(weights: jax.Array, gram: jax.Array, max_norm: float | None) -> jax.Array:
  """Weights [K] with |d| <= max_norm: |d|^2 = w^T A w, so that no other pass is needed."""
  if max_norm is None:
    return weights
  norm = jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0.0))
  return weights * max_norm / jnp.maximum(norm, max_norm)


def check_max_norm(max_norm: float | None) -> None:
  """`max_norm` > 0 or None, or a sentence."""
  if max_norm is not None and not max_norm > 0:
    raise ValueError(f"max_norm must be positive or None, got {max_norm}")


def gram_aggregator(
  num_objectives: int,
  weigh: Callable[[jax.Array, jax.Array], jax.Array],
  make_state: Callable[[jax.Array], Any],
  scope: str,
) -> Aggregator:
  """The aggregator of `weigh(gram [R, R], present [R]) -> multipliers [R]`, with no memory.

  `make_state(weights [K])` names what was decided last.

  Raises:
    TypeError, ValueError: a bad number of objectives, an unknown scope, gradients of another K.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("scope", scope, _groups.SCOPES)

  def init_fn(params):
    del params
    return make_state(_groups.uniform_weights(num_objectives))

  def update_fn(updates, state, params=None, *, owners=None, present=None, **extra_args):
    del state, params, extra_args
    _groups.check_stacked(updates, num_objectives)
    direction, weights = _groups.aggregate(
      lambda gram, rows, here: weigh(gram, here),
      updates,
      owners,
      _groups.everyone(present, num_objectives),
      scope,
    )
    return direction, make_state(weights)

  return Aggregator(init_fn, update_fn)


def gram_rule(
  num_objectives: int,
  weights_of: Callable[[jax.Array, jax.Array], jax.Array],
  make_state: Callable[[jax.Array], Any],
  *,
  rescale: str,
  scope: str,
  to_count: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Aggregator:
  """`gram_aggregator` of `weights_of(gram [R, R], present [R]) -> [R]` and the option `rescale`.

  "none": the weights as they are; "sum": times the number of present objectives, as weights of a
  mean need, or `to_count(weights, present)` where their sum is not 1.
  """
  _groups.check_choice("rescale", rescale, _groups.RESCALE)

  def weigh(gram, here):
    weights = weights_of(gram, here)
    if rescale == "sum" and to_count is not None:
      return to_count(weights, here)
    return _groups.rescaled(weights, here, rescale)

  return gram_aggregator(num_objectives, weigh, make_state, scope)
