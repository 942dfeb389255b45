"""Means and variances over the rows that are present."""

import jax
import jax.numpy as jnp

EPSILON = 1e-5  # torch's default; Flax's own layers default to 1e-5 (batch) and 1e-6 (layer, group)


def along(vector: jax.Array, axis: int, ndim: int) -> jax.Array:
  """`vector` [n] with `ndim` axes, n at `axis` and 1 elsewhere."""
  return jnp.expand_dims(vector, [a for a in range(ndim) if a != axis % ndim])


def counted(x: jax.Array, mask: jax.Array, channel: int):
  """(rows bool [B] that moments are of, how many numbers of x a channel has in them, float32).

  The present ones, or with nobody present all, so that nothing divides by zero.
  """
  rows = mask | ~jnp.any(mask)
  return rows, jnp.sum(rows, dtype=jnp.float32) * (x.size // (len(mask) * x.shape[channel]))


def batch_moments(x: jax.Array, mask: jax.Array, row: int = 0, channel: int = -1):
  """Mean and biased variance [C] over the present rows and all positions of x, in float32.

  `row`, `channel`: the axes of the rows (`mask` bool [B]) and of the channels. Sums run over the whole
  array, hence over the whole device mesh under `jit`.
  """
  row, channel = row % x.ndim, channel % x.ndim
  rows, count = counted(x, mask, channel)
  positions = tuple(a for a in range(x.ndim) if a not in (row, channel))
  first = int(row > channel)  # the axis of the rows once the positions are summed

  def total(y):  # the positions first, so that the choice of rows costs [B, C]
    return jnp.sum(jnp.where(along(rows, first, 2), jnp.sum(y, positions), 0.0), first)

  x = x.astype(jnp.float32)
  mean = total(x) / count
  return mean, total(jnp.square(x - along(mean, channel, x.ndim))) / count


def view_moments(x: jax.Array, mask: jax.Array, views: int, channel: int):
  """`batch_moments` [V, C] of V equal runs of rows, and `beside` that puts a [V, C] beside x.

  x: [V B, ..., C], or [..., C, ..., V B] where `channel` is not the last axis; mask: bool [B], of each run.
  """
  last = channel != x.ndim - 1
  row = x.ndim - 1 if last else 0
  positions = tuple(a for a in range(x.ndim) if a not in (row, channel))
  (rows, count), size = counted(x, mask, channel), x.shape[row] // views
  count = count / views  # x has V times the rows of the mask

  def total(y):
    y = jnp.sum(y, positions)
    runs = (y.T if last else y).reshape(views, size, -1)
    return jnp.sum(jnp.where(rows[None, :, None], runs, 0.0), 1)

  def beside(v):
    v = jnp.repeat(v, size, 0)
    return jnp.expand_dims(v.T if last else v, positions)

  x = x.astype(jnp.float32)
  mean = total(x) / count
  return mean, total(jnp.square(x - beside(mean))) / count, beside
