"""Encoders of one shape side by side: they compile as one and run as one batch.

M^2 + M of their own take twice as long to compile and, where they are small, to run (docs/performance.md).
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Places = Sequence[int]  # of modalities among all of them


def keys_of(key: jax.Array, number: tuple[int, ...]) -> jax.Array:
  """A key for each encoder, [*number]."""
  return jax.random.split(key, number)


def start(encoder: nn.Module, key: jax.Array, number: tuple[int, ...], *example: Any) -> Any:
  """Parameters of `encoder(*example, train=False)`, each drawn for itself: leaves [*number, ...]."""
  one: Callable[..., Any] = lambda k: encoder.init(k, *example, train=False)["params"]
  for _ in number:
    one = jax.vmap(one)
  return one(keys_of(key, number))


def at(tree: Any, *places: Places) -> Any:
  """Leaves [*number, ...] at the places along each axis; as they are where those are all."""

  def one(leaf):
    everywhere = all(len(p) == n for p, n in zip(places, leaf.shape, strict=False))
    return leaf if everywhere else leaf[np.ix_(*places)]

  return jax.tree.map(one, tree)


def say(
  encoder: nn.Module, params: Any, keys: Any, x: Any, context: Any, *, train: bool
) -> jax.Array:
  """What each encoder says: [I, ...] of x [I, ...], or [I, J, ...] of x [I, ...] in contexts [J, ...].

  Args:
    encoder: called with x, context and `train`.
    params: leaves [I, ...]; with a context [I, J, ...].
    keys: of dropout, [I] or [I, J]; None for none.
    x: leaves [I, ...].
    context: leaves [J, ...], or None.
    train: as the encoder takes it.
  """

  def one(params, key, x, context):
    rngs = None if key is None else {"dropout": key}
    return encoder.apply({"params": params}, x, context, train=train, rngs=rngs)

  each = one if context is None else jax.vmap(one, (0, 0, None, 0))
  return jax.vmap(each, (0, 0, 0, None))(params, keys, x, context)


def in_order(parts: Sequence[jax.Array], groups: Sequence[Places], axis: int) -> jax.Array:
  """Arrays of groups of modalities side by side along an axis, in the order of the modalities."""
  if len(parts) == 1:
    return parts[0]
  order = np.argsort([i for g in groups for i in g])
  return jnp.take(jnp.concatenate(parts, axis), order, axis)
