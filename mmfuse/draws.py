"""Random numbers drawn as one vector and then given their shape.

XLA makes a loop of every draw, and compiles that of an array of four axes six times as long as that of a
vector (on CPU 1 s and .17 s). The numbers are the same: the n-th depends on the key and on n alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Draw = Callable[..., jax.Array]  # (key, shape=..., **options) -> numbers of that shape


def flat(draw: Draw, key: jax.Array, shape: Sequence[int], **options: Any) -> jax.Array:
  """`draw(key, shape=shape, **options)`, drawn as a vector.

  Args:
    draw: `jax.random.normal`, `uniform`, `bernoulli`...; of independent numbers, not `permutation`.
    key: of the draw.
    shape: of the result.
    **options: of `draw`, scalars (`p=`).
  """
  return draw(key, shape=(math.prod(shape),), **options).reshape(shape)


def split(draw: Draw, key: jax.Array, shapes: Sequence[Sequence[int]]) -> list[jax.Array]:
  """Arrays of `shapes`, cut one after the other from one vector `draw(key, shape=(n,))`.

  Args:
    draw: as in `flat`.
    key: of the draw.
    shapes: of the arrays, in order.
  """
  vector = draw(key, shape=(sum(map(math.prod, shapes)),))
  out, start = [], 0
  for shape in shapes:
    end = start + math.prod(shape)
    out.append(vector[start:end].reshape(shape))
    start = end
  return out


def rows_first(
  draw: Draw, key: jax.Array, lead: tuple[int, ...], rows: int, width: int
) -> jax.Array:
  """Noise [*lead, B, L] whose rows do not depend on how many there are.

  Args:
    draw: as in `flat`.
    key: of the draw.
    lead: what stands before the rows: components, samples.
    rows: B.
    width: L.
  """
  return jnp.moveaxis(flat(draw, key, (rows, *lead, width)), 0, len(lead))
