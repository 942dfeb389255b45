"""3 x 3 convolutions by 16 products a 2 x 2 cell where 36 are needed, for CPU.

y = A^T ((G k G^T) * (B^T d B)) A for each cell y [2, 2] and the d [4, 4] that it sees: the sum over channels
is a matrix product for each of the 16 entries. Fast Algorithms for Convolutional Neural Networks; Lavin and
Gray; CVPR 2016, F(2 x 2, 3 x 3), whose rounding is that of a direct convolution.
"""

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

SEES, CELL, TAPS = 4, 2, 3
LEAST = 128  # channels: writing the 16 entries of fewer costs what their products save
B = ((1, 0, 0, 0), (0, 1, -1, 1), (-1, 1, 1, 0), (0, 0, 0, -1))
G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
A = ((1, 0), (1, 1), (1, -1), (0, -1))

Grid = list[list[jax.Array]]


def winograd_pays(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding) -> bool:
  """Whether x [N, H, W, C] is convolved faster so: float32 on CPU, wide, many cells for a kernel's cost."""
  near = all(tuple(pair) == (1, 1) for pair in padding)
  if kernel.shape[:-2] != (TAPS, TAPS) or set(strides) != {1} or not near:
    return False
  cells, widths = len(x) * math.prod(_cells(x.shape)), kernel.shape[-2:]
  wide = min(widths) >= LEAST and 2 * cells >= max(widths)
  return wide and x.dtype == jnp.float32 and jax.default_backend() == "cpu"


def _sum(row: Sequence[float], parts: Sequence[jax.Array]) -> jax.Array:
  """sum_a row_a parts_a, of what is not zero."""
  terms = [part if c == 1 else -part if c == -1 else c * part for c, part in zip(row, parts) if c]
  return functools.reduce(operator.add, terms)


def _both(matrix, parts: Grid) -> Grid:
  """m^T p m over a grid of arrays: [i][j] = sum_ab m_ai m_bj p_ab."""
  rows = [[_sum(m, column) for column in zip(*parts)] for m in zip(*matrix)]
  return [[_sum(m, row) for m in zip(*matrix)] for row in rows]


def _turned(matrix):
  return tuple(zip(*matrix))


def _split(x: jax.Array, low: int, size: Sequence[int], sees: int) -> Grid:
  """x [N, H, W, C] with `low` zeros before it as [a][b]: [cells, C], position (2 p + a, 2 q + b)."""
  high = [(n - 1) * CELL + sees - low - have for n, have in zip(size, x.shape[1:3])]
  x = jnp.pad(x, ((0, 0), *((low, h) for h in high), (0, 0)))

  def one(a, b):
    ends = [o + (n - 1) * CELL + 1 for o, n in zip((a, b), size)]
    part = jax.lax.slice(x, (0, a, b, 0), (len(x), *ends, x.shape[-1]), (1, CELL, CELL, 1))
    return part.reshape(-1, x.shape[-1])

  return [[one(a, b) for b in range(sees)] for a in range(sees)]


def _joined(cells: Grid, shape: Sequence[int], size: Sequence[int]) -> jax.Array:
  """The 2 x 2 grid of [cells, F] as [N, H, W, F]."""
  parts = [[c.reshape(shape[0], *size, -1) for c in row] for row in cells]
  y = jnp.stack([jnp.stack(row, 3) for row in parts], 2)
  y = y.reshape(shape[0], CELL * size[0], CELL * size[1], -1)
  return y[:, : shape[1], : shape[2]]


def _cells(shape: Sequence[int]) -> tuple[int, int]:
  return -(-shape[1] // CELL), -(-shape[2] // CELL)


def _seen(x: jax.Array) -> Grid:
  """B^T d B of every cell: [4][4] of [cells, C]."""
  return _both(B, _split(x, 1, _cells(x.shape), SEES))


def _kernel(k: jax.Array) -> Grid:
  """G k G^T: [4][4] of [C, F]."""
  return _both(_turned(G), [[k[a, b] for b in range(TAPS)] for a in range(TAPS)])


def _conv(x: jax.Array, kernel: Grid) -> jax.Array:
  products = [[v @ u for v, u in zip(*rows)] for rows in zip(_seen(x), kernel)]
  return _joined(_both(A, products), x.shape, _cells(x.shape))


def _turned_kernel(kernel: Grid) -> Grid:
  """G k' G^T of k'[a, b] = k[2 - a, 2 - b]^T: the first and last row of G change places, the others none."""
  order = (3, 1, 2, 0)
  return [[kernel[i][j].T for j in order] for i in order]


@jax.custom_vjp
def conv_winograd(x: jax.Array, k: jax.Array) -> jax.Array:
  """The convolution of x [N, H, W, C] with k [3, 3, C, F], stride 1, one zero around: [N, H, W, F].

  Gradients are such convolutions too. It can be differentiated again; `jax.jvp` of it cannot.
  """
  return _conv(x, _kernel(k))


def _backward(kept, g):
  x, k = kept
  # Equal to x, but not to XLA, which would keep the 16 entries of the forward pass: four times x.
  x = x + 0.0 * g[:1, :1, :1, :1]
  dx = _conv(g, _turned_kernel(_kernel(k)))
  gs = _both(_turned(A), _split(g, 0, _cells(g.shape), CELL))
  products = [[v.T @ u for v, u in zip(*rows)] for rows in zip(_seen(x), gs)]
  dk = _both(G, products)
  return dx, jnp.stack([jnp.stack(row) for row in dk])


conv_winograd.defvjp(lambda x, k: (_conv(x, _kernel(k)), (x, k)), _backward)
