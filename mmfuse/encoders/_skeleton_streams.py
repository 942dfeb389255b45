"""What is derived of a skeleton sequence: joint, bone and motion, tokens of time and of place, other lengths.

Sun, Liu, Dong, Qu, Gao, Yang, Wang, Wang: Unified Multi-modal Unsupervised Representation Learning for
Skeleton-based Action Understanding, ACM MM 2023.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.core import Sequence as Ended
from mmfuse.encoders._sequence import length_of, steps

STREAMS = ("bone", "joint", "motion")


def skeleton_streams(x: jax.Array, parents: Sequence[int]) -> dict[str, jax.Array]:
  """{"joint": x, "bone": x_j - x_parent(j), "motion": x_{t+1} - x_t, 0 at the end} of x [B, T, P, J, C].

  parents: that of each joint, counted from 0; the root's is itself, and its bone 0.
  """
  bone = x - x[:, :, :, np.asarray(parents)]
  motion = jnp.pad(x[:, 1:] - x[:, :-1], ((0, 0), (0, 1), *((0, 0),) * 3))
  return {"bone": bone, "joint": x, "motion": motion}


def skeleton_tokens(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """([B, T, P J C] a token a frame, [B, P J, T C] a token a joint and person) of x [B, T, P, J, C]."""
  rows, frames, persons, joints, coordinates = x.shape
  places = jnp.moveaxis(x, 1, 3).reshape(rows, persons * joints, frames * coordinates)
  return x.reshape(rows, frames, -1), places


def resize_frames(
  x: jax.Array, frames: int, start: jax.Array | None = None, length: jax.Array | None = None
) -> jax.Array:
  """x [B, S, ...] between `start` and `start + length` [B], as `frames` by linear interpolation.

  Frame i stands at (i + 1/2) length / frames - 1/2, held at both ends: half-pixel centres, as torch
  resizes without aligned corners. No other frame is read.

  Args:
    x: float.
    frames: wanted, at least 1.
    start: int [B], default 0.
    length: int [B], 1..S - start (less counts as 1); default S.
  """
  rows, size = x.shape[:2]
  start = jnp.zeros(rows, jnp.int32) if start is None else start
  length = jnp.full(rows, size, jnp.int32) if length is None else jnp.maximum(length, 1)
  ratio = (length.astype(jnp.float32) / frames)[:, None]
  at = jnp.maximum((jnp.arange(frames, dtype=jnp.float32) + 0.5)[None] * ratio - 0.5, 0.0)
  last = (length - 1)[:, None]
  low = jnp.minimum(jnp.floor(at).astype(jnp.int32), last)
  high = jnp.minimum(low + 1, last)
  part = jnp.expand_dims(at - low, range(2, x.ndim))
  pick = jax.vmap(lambda row, index: row[index])
  below, above = (pick(x, start[:, None] + index) for index in (low, high))
  return (1 - part) * below + part * above


def whole_frames(x: Any, frames: int | None = None) -> jax.Array:
  """All valid frames of an array [B, S, ...] or `core.Sequence`, as so many: what is evaluated.

  frames: default None, S; an array of S frames comes back as it is then.
  """
  values = steps(x)[0]
  wanted = values.shape[1] if frames is None else frames
  if not isinstance(x, Ended) and wanted == values.shape[1]:
    return values
  return resize_frames(values, wanted, length=length_of(x))
