"""Views of a skeleton sequence: a part of its time, then joints corrupted or the pose sheared. As UmURL's.

Draws of a row depend on the key and the row's place alone: rows after it change nothing.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import draws
from mmfuse.core import Sequence
from mmfuse.encoders import resize_frames, steps


def sheared(x: jax.Array, off_diagonal: jax.Array) -> jax.Array:
  """S x of every joint of x [B, T, P, J, C]; S: 1 on the diagonal, off_diagonal [B, C (C - 1)] row by row."""
  size = x.shape[-1]
  rows, columns = np.nonzero(~np.eye(size, dtype=bool))
  matrix = jnp.broadcast_to(jnp.eye(size, dtype=x.dtype), (x.shape[0], size, size))
  matrix = matrix.at[:, rows, columns].set(off_diagonal)
  return jnp.einsum("bca,btpja->btpjc", matrix, x)


def corrupted(x: jax.Array, joints: jax.Array, matrix: jax.Array, zeroed: jax.Array) -> jax.Array:
  """Some joints of x [B, T, P, J, C] as row vectors times a matrix, or at the origin.

  Args:
    x: as said.
    joints: bool [B, J], which.
    matrix: [B, C, C].
    zeroed: bool [B], where they are put at the origin instead.
  """
  moved = jnp.einsum("btpja,bac->btpjc", x, matrix)
  moved = jnp.where(zeroed[:, None, None, None, None], 0.0, moved)
  return jnp.where(joints[:, None, None, :, None], moved, x)


def part_of_time(
  draw: jax.Array, length: jax.Array, least: float, frames: int
) -> tuple[jax.Array, jax.Array]:
  """(start, length) [B] of a share of each row's length, at least so many frames.

  Args:
    draw: U(0, 1) [B, 2]: of the share, which is U(least, 1), and of where it starts.
    length: int [B], of which at least `frames` are taken where there are so many.
    least: in (0, 1].
    frames: at least 1.
  """
  part = jnp.floor((least + (1 - least) * draw[:, 0]) * length).astype(jnp.int32)
  part = jnp.minimum(jnp.maximum(part, frames), length)
  start = jnp.floor(draw[:, 1] * (length - part + 1)).astype(jnp.int32)
  return jnp.minimum(start, length - part), part


@dataclasses.dataclass(frozen=True)
class View:
  """One view of each row.

  With probability 1/2 `joints` of all joints are corrupted (at the origin, or times a matrix U(-1, 1),
  1/2 each), else the pose is sheared by U(-1, 1).

  Args:
    crop: the least share of the time.
    crop_frames: the least frames; sequences that are no longer keep their time.
    joints: the share corrupted.
  """

  crop: float
  crop_frames: int
  joints: float

  def __call__(self, key: jax.Array, x: Any, frames: int | None) -> jax.Array:
    """[B, T, P, J, C] of x [B, S, P, J, C] or a `core.Sequence`; T is `frames`, by default S."""
    values = steps(x)[0]
    rows, size, coordinates = values.shape[0], values.shape[3], values.shape[4]
    sizes = (2, 2, size, coordinates**2, coordinates * (coordinates - 1))
    # Row by row: those after it draw nothing of it.
    drawn = draws.flat(jax.random.uniform, key, (rows, sum(sizes)))
    time, choice, order, matrix, pose = jnp.split(drawn, np.cumsum(sizes)[:-1], 1)
    view = self.timed(time, x, frames)
    chosen = jnp.argsort(jnp.argsort(order, 1), 1) < round(self.joints * size)
    matrix = (2 * matrix - 1).reshape(rows, coordinates, coordinates)
    broken = corrupted(view, chosen, matrix, choice[:, 1] < 0.5)
    half = (choice[:, 0] < 0.5)[:, None, None, None, None]
    return jnp.where(half, broken, sheared(view, 2 * pose - 1))

  def timed(self, draw: jax.Array, x: Any, frames: int | None) -> jax.Array:
    """[B, T, ...]: a part of each row's time, resized; draw [B, 2]."""
    values = steps(x)[0]
    size = values.shape[1]
    wanted = size if frames is None else frames
    whole = size <= self.crop_frames or self.crop >= 1
    if whole and wanted == size and not isinstance(x, Sequence):
      return values
    length = x.length if isinstance(x, Sequence) else jnp.full(values.shape[0], size, jnp.int32)
    return resize_frames(values, wanted, *part_of_time(draw, length, self.crop, self.crop_frames))
