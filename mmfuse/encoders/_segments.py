"""Means over a few segments: what keeps where in a sequence or an image something happens."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def shares(steps: int, segments: int) -> np.ndarray:
  """[S, T]: the share of step t in segment s of T steps cut into S equal parts; rows sum to 1.

  Steps on a cut count to both sides by overlap, so no segment is ever empty, T < S included.
  """
  start = np.arange(steps)[None, :]
  low = np.arange(segments)[:, None] * (steps / segments)
  overlap = np.minimum(start + 1, low + steps / segments) - np.maximum(start, low)
  return (np.maximum(overlap, 0) * segments / steps).astype(np.float32)


def shares_of(length: jax.Array, steps: int, segments: int) -> jax.Array:
  """[B, S, T]: as `shares`, each row cut within its own length [B] (at least 1)."""
  start = jnp.arange(steps, dtype=jnp.float32)[None, None, :]
  total = jnp.maximum(length, 1).astype(jnp.float32)[:, None, None]
  width = total / segments
  low = jnp.arange(segments, dtype=jnp.float32)[None, :, None] * width
  overlap = jnp.minimum(start + 1, low + width) - jnp.maximum(start, low)
  return jnp.maximum(overlap, 0) / width


def segment_means(x: jax.Array, segments: int, length: jax.Array | None = None) -> jax.Array:
  """Means of x [B, T, D] over at most `segments` parts of the time: [B, S, D], S = min(segments, T).

  length: int [B], steps that count; each row is cut within its own. None = T for all.
  """
  steps = x.shape[1]
  count = min(segments, steps)
  if length is None:
    return jnp.einsum("st,btd->bsd", jnp.asarray(shares(steps, count), x.dtype), x)
  return jnp.einsum("bst,btd->bsd", shares_of(length, steps, count).astype(x.dtype), x)


def grid_means(x: jax.Array, grid: Sequence[int], batch_last: bool = False) -> jax.Array:
  """Means of x [B, H, W, C] over a grid of at most `grid` cells, flattened: [B, cells * C].

  batch_last: x is [C, H, W, B].
  """
  high, wide = x.shape[1:3]
  rows = jnp.asarray(shares(high, min(grid[0], high)), x.dtype)
  columns = jnp.asarray(shares(wide, min(grid[1], wide)), x.dtype)
  if batch_last:  # one product of matrices: a third of the time of two over [C, H, W, B]
    cells = jnp.einsum("ih,jw->ijhw", rows, columns).reshape(-1, high * wide)
    flat = x.reshape(x.shape[0], -1, x.shape[-1]).transpose(1, 2, 0)
    means = jnp.matmul(cells, flat.reshape(high * wide, -1)).reshape(-1, *flat.shape[1:])
    return jnp.swapaxes(means, 0, 1).reshape(x.shape[-1], -1)
  return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x).reshape(x.shape[0], -1)
