"""One entry of an axis for each row: without a gather, whose gradient is a scatter.

XLA compiles that scatter as some seven loops, and on CPU runs it row by row. Where the axis is short
(classes, steps), a sum over a select costs less.
"""

import jax
import jax.numpy as jnp


def matches(index: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
  """bool `shape`: which entries are those that an index names.

  Args:
    index: int, `shape` without the axis, or broadcasting to it rank for rank.
    shape: of what is looked into.
    axis: where.
  """
  axis %= len(shape)
  index = jnp.expand_dims(index.astype(jnp.int32), axis)  # int8 would count from 0 again
  return index == jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def along(x: jax.Array, index: jax.Array, axis: int) -> jax.Array:
  """x[..., index, ...], `x.shape` without the axis; 0 where the index is not on it.

  The number itself: what is not chosen is not read, so that it may be NaN.

  Args:
    x: float, of any shape.
    index: int, `x.shape` without the axis, or broadcasting to it rank for rank.
    axis: where to look it up.
  """
  return jnp.where(matches(index, x.shape, axis), x, jnp.zeros((), x.dtype)).sum(axis)
