"""Spatial transforms as pure functions: drawn once a step, and done to images and to maps alike."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

SHIFT = 0.3  # of a side, at most
SCALE = (0.8, 1.2)  # of a picture: 192 to 288 pixels of 240
KINDS = ("flip", "turn", "shift", "scale")
EXACT = ("flip", "turn")  # those that move whole pixels and lose none


class Transform(NamedTuple):
  """What was drawn of one of several kinds; the draws of the others are not read."""

  kind: jax.Array  # int32 [], a place in `kinds`
  axis: jax.Array  # int32 [], of the flip: 0 upside down, 1 left to right
  turns: jax.Array  # int32 [B], quarter turns, 1 to 3
  shift: jax.Array  # [2], in sides
  scale: jax.Array  # []


def draw(key: jax.Array, rows: int, kinds: Sequence[str] = EXACT) -> Transform:
  """One of `kinds`, all equally likely, for the whole batch; quarter turns are drawn row by row.

  Args:
    key: of the draw.
    rows: B.
    kinds: some of "flip" (along an axis), "turn" (by 90, 180 or 270 degrees), "shift" (by up to .3 of a
      side) and "scale" (about the centre, by .8 to 1.2); default the first two, which are exact.
  """
  kind, axis, turns, shift, scale = jax.random.split(key, 5)
  return Transform(
    jax.random.randint(kind, (), 0, len(kinds)),
    jax.random.randint(axis, (), 0, 2),
    jax.random.randint(turns, (rows,), 1, 4),
    jax.random.uniform(shift, (2,), minval=-SHIFT, maxval=SHIFT),
    jax.random.uniform(scale, (), minval=SCALE[0], maxval=SCALE[1]),
  )


def transformed(drawn: Transform, x: jax.Array, kinds: Sequence[str] = EXACT) -> jax.Array:
  """pi(x), x [B, H, W, C]: images, or maps of them. What comes in from outside is 0.

  A picture that is not square keeps its shape: it is turned by 180 degrees.

  Args:
    drawn: by `draw`.
    x: of any channels.
    kinds: those that it was drawn of.
  """
  found: jax.Array = jax.lax.switch(drawn.kind, [_DONE[kind] for kind in kinds], drawn, x)
  return found


def _flip(drawn: Transform, x: jax.Array) -> jax.Array:
  return jnp.where(drawn.axis == 0, x[:, ::-1], x[:, :, ::-1])


def _turn(drawn: Transform, x: jax.Array) -> jax.Array:
  if x.shape[1] != x.shape[2]:
    return x[:, ::-1, ::-1]
  turns = drawn.turns[:, None, None, None]
  quarter, half, three = (jnp.rot90(x, k, (1, 2)) for k in (1, 2, 3))
  return jnp.where(turns == 1, quarter, jnp.where(turns == 2, half, three))


def _shift(drawn: Transform, x: jax.Array) -> jax.Array:
  """By whole pixels."""
  reach = [int(SHIFT * n) + 1 for n in x.shape[1:3]]
  by = [jnp.round(s * n).astype(jnp.int32) for s, n in zip(drawn.shift, x.shape[1:3])]
  padded = jnp.pad(x, ((0, 0), *((r, r) for r in reach), (0, 0)))
  y, x0 = (r - b for r, b in zip(reach, by))
  return jax.lax.dynamic_slice(padded, (0, y, x0, 0), x.shape)


def _scale(drawn: Transform, x: jax.Array) -> jax.Array:
  """Between pixels linearly; the size in pixels stays, so that every draw is one program."""
  scale = jnp.broadcast_to(drawn.scale, (2,))
  centre = jnp.asarray(x.shape[1:3], jnp.float32) / 2
  place = (1 - scale) * centre
  return jax.image.scale_and_translate(
    x.astype(jnp.float32), x.shape, (1, 2), scale, place, method="linear", antialias=False
  ).astype(x.dtype)


_DONE = {"flip": _flip, "turn": _turn, "shift": _shift, "scale": _scale}
