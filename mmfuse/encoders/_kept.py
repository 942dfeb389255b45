"""What dropout keeps, drawn once for a whole encoder."""

import math

import jax
import jax.numpy as jnp

from mmfuse import draws


def kept(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
  """bool of `shape` [B, ..., D], each True with probability 1 - rate, to 2^-17.

  A random word serves two entries, and a row's do not depend on how many rows there are. One draw for all
  layers: XLA makes a loop of every draw (see `draws`).
  """
  entries = math.prod(shape[1:])
  words = draws.flat(jax.random.bits, key, (shape[0], -(-entries // 2)), dtype="uint32")
  halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(shape[0], -1)[:, :entries]
  return halves.reshape(shape) >= jnp.uint16(min(round(rate * 2**16), 2**16 - 1))


def dropped(x: jax.Array, keep: jax.Array | None, rate: float) -> jax.Array:
  """keep x / (1 - rate), or x where nothing was drawn."""
  return x if keep is None else jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype))
