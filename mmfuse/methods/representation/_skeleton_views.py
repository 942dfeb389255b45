"""Views of a skeleton sequence: a part of its time, then joints corrupted or the pose sheared. As UmURL's.

Draws of a row depend on the key and the row's place alone: rows after it change nothing.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


def drawn_crop(
  key: jax.Array, length: jax.Array, least: float, frames: int
) -> tuple[jax.Array, jax.Array]:
  """(start, length) [B] of a share U(least, 1) of each row's length [B], at least so many frames."""
  share, place = (jax.random.uniform(k, length.shape) for k in jax.random.split(key))
  part = jnp.floor((least + (1 - least) * share) * length).astype(jnp.int32)
  part = jnp.minimum(jnp.maximum(part, frames), length)
  start = jnp.floor(place * (length - part + 1)).astype(jnp.int32)
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
    time, which, choice, of_joints, of_pose = jax.random.split(key, 5)
    x = self.part_of_time(time, x, frames)
    rows, size, coordinates = x.shape[0], x.shape[3], x.shape[4]
    even = lambda key, *shape: jax.random.uniform(key, (rows, *shape), minval=-1.0, maxval=1.0)
    number = round(self.joints * size)
    order = jnp.argsort(jax.random.uniform(of_joints, (rows, size)), 1)
    chosen = jnp.argsort(order, 1) < number
    matrix_key, pose_key = jax.random.split(of_pose)
    zeroed = jax.random.bernoulli(choice, 0.5, (rows,))
    broken = corrupted(x, chosen, even(matrix_key, coordinates, coordinates), zeroed)
    bent = sheared(x, even(pose_key, coordinates * (coordinates - 1)))
    half = jax.random.bernoulli(which, 0.5, (rows,))
    return jnp.where(half[:, None, None, None, None], broken, bent)

  def part_of_time(self, key: jax.Array, x: Any, frames: int | None) -> jax.Array:
    """[B, T, ...]: a part of each row's time, resized."""
    values = steps(x)[0]
    size = values.shape[1]
    wanted = size if frames is None else frames
    whole = size <= self.crop_frames or self.crop >= 1
    if whole and wanted == size and not isinstance(x, Sequence):
      return values
    length = x.length if isinstance(x, Sequence) else jnp.full(values.shape[0], size, jnp.int32)
    start, part = drawn_crop(key, length, self.crop, self.crop_frames)
    return resize_frames(values, wanted, start, part)
