"""Random numbers for many leaves from one draw."""

import math
from collections.abc import Callable, Sequence

import jax


def split_draw(
  draw: Callable[..., jax.Array], key: jax.Array, shapes: Sequence[tuple[int, ...]]
) -> list[jax.Array]:
  """float32 arrays of `shapes`, cut from one vector `draw(key, (n,))`.

  XLA makes a loop of every draw, and a long one of a draw of more than two axes: with one flat draw a
  step compiles several times faster.
  """
  flat = draw(key, (sum(map(math.prod, shapes)),))
  out, start = [], 0
  for shape in shapes:
    end = start + math.prod(shape)
    out.append(flat[start:end].reshape(shape))
    start = end
  return out
