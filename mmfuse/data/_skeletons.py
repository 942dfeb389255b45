"""skeletons: a body of 25 joints swings one of its limbs, once or twice in 32 frames."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._skeleton_graph import NTU_PARENTS, NTU_ROOT
from mmfuse.data._table import Table

RECIPE = "skeletons-1"  # raise it whenever a coordinate or a row's part would change
FRAMES = 32
COUNTS = {"train": 100, "test": 50}  # rows of a class
LIMBS = ("left arm", "right arm", "left leg", "right leg")
CYCLES = (1, 2)  # in 32 frames
# Joints numbered from 1. {joint: (direction to it from its parent, length in trunk bones)}; x to the
# body's left, y up, z ahead.
_LEFT, _RIGHT, _UP, _DOWN, _AHEAD = (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)
BONES: dict[int, tuple[tuple[int, int, int], float]] = {
  2: (_DOWN, 1.0),
  1: (_DOWN, 1.0),
  3: (_UP, 0.4),
  4: (_UP, 0.4),
}
for _side, _arm, _tip, _leg in ((_LEFT, 5, 22, 13), (_RIGHT, 9, 24, 17)):
  BONES |= {_arm: (_side, 0.7), _arm + 1: (_DOWN, 1.1), _arm + 2: (_DOWN, 1.0)}
  BONES |= {_arm + 3: (_DOWN, 0.3), _tip + 1: (_AHEAD, 0.15), _tip: (_DOWN, 0.15)}
  BONES |= {_leg: (_side, 0.4), _leg + 1: (_DOWN, 1.6), _leg + 2: (_DOWN, 1.6)}
  BONES |= {_leg + 3: (_AHEAD, 0.5)}
# What swings about the shoulder 5, 9 or the hip 13, 17.
SWINGING = ((6, 7, 8, 22, 23), (10, 11, 12, 24, 25), (14, 15, 16), (18, 19, 20))
AMPLITUDE, JITTER = 50.0, 10.0  # degrees
TURN, SCALE, NOISE = 45.0, (0.8, 1.2), 0.03


def _order() -> list[int]:
  """Joints from the root outwards, the root left out."""
  known, order = {NTU_ROOT}, []
  while len(known) < len(NTU_PARENTS):
    found = [j for j, p in enumerate(NTU_PARENTS) if j not in known and p in known]
    known |= set(found)
    order += found
  return order


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
  """Rotations [..., 3, 3] of row vectors about x (0) or y (1)."""
  c, s, one = np.cos(angle), np.sin(angle), np.ones_like(angle)
  turn = np.zeros((*angle.shape, 3, 3))
  a, b = [i for i in range(3) if i != axis]
  turn[..., axis, axis] = one
  turn[..., a, a], turn[..., b, b] = c, c
  turn[..., a, b], turn[..., b, a] = s, -s
  return turn


class Draws(NamedTuple):
  """What is drawn of N rows, each by a generator of its own."""

  amplitude: np.ndarray  # [N], degrees
  scale: np.ndarray  # [N]
  turn: np.ndarray  # [N], degrees about the vertical
  phase: np.ndarray  # [N]
  noise: np.ndarray  # [N, 32, 25, 3]


def draws(seeds: Iterable[tuple[int, ...]]) -> Draws:
  """Amplitude 50 degrees +- 10, scale .8 to 1.2, turn +-45 degrees, any phase, noise of .03."""

  def one(seed):
    rng = np.random.default_rng(seed)
    drawn = (
      AMPLITUDE + rng.uniform(-JITTER, JITTER),
      rng.uniform(*SCALE),
      rng.uniform(-TURN, TURN),
      rng.uniform(0, 2 * np.pi),
    )
    return *drawn, rng.normal(0.0, NOISE, (FRAMES, len(NTU_PARENTS), 3))

  return Draws(*(np.asarray(v) for v in zip(*map(one, seeds))))


def posed(label: np.ndarray, drawn: Draws) -> np.ndarray:
  """Bodies [N, 32, 25, 3] of classes `label` [N]: limb label // 2 swings CYCLES[label % 2] times.

  The limb's bones turn about the axis across the body by a sin(2 pi c t / 32 + phase); then the body is
  scaled and turned about the vertical, and noise is added to all joints but the root, which stays at the
  origin.
  """
  cycles, time = np.asarray(CYCLES)[label % 2], np.arange(FRAMES)
  pendulum = np.sin(2 * np.pi * cycles[:, None] * time / FRAMES + drawn.phase[:, None])
  swing = _about(0, np.deg2rad(drawn.amplitude)[:, None] * pendulum)  # [N, 32, 3, 3]
  x = np.zeros((len(label), FRAMES, len(NTU_PARENTS), 3))
  for j in _order():
    direction, length = BONES[j + 1]
    bone = np.broadcast_to(length * np.asarray(direction, float), (len(label), FRAMES, 3))
    limb = [i for i, joints in enumerate(SWINGING) if j + 1 in joints]
    if limb:
      here = (label // 2 == limb[0])[:, None, None]
      bone = np.where(here, (bone[..., None, :] @ swing)[..., 0, :], bone)
    x[:, :, j] = x[:, :, NTU_PARENTS[j]] + bone
  x = drawn.scale[:, None, None, None] * (x @ _about(1, np.deg2rad(drawn.turn))[:, None])
  x += drawn.noise
  x[:, :, NTU_ROOT] = 0.0
  return x


def arrays(seed: int = 0) -> dict[str, Any]:
  """skeleton float32 [1200, 32, 1, 25, 3], label [1200] and split; classes take turns."""
  classes = len(LIMBS) * len(CYCLES)
  counts = {part: count * classes for part, count in COUNTS.items()}
  seeds = [(seed, n, row) for n, count in enumerate(counts.values()) for row in range(count)]
  label = np.asarray([row % classes for *_, row in seeds])
  names = np.asarray([f"{limb}, {cycles}" for limb in LIMBS for cycles in CYCLES])
  x = posed(label, draws(seeds))[:, :, None].astype(np.float32)
  return {
    "skeleton": x,
    "label": names[label],
    "split": np.repeat(list(counts), list(counts.values())),
  }


def table(seed: int = 0) -> Table:
  """skeletons: `skeleton` [1200, 32, 1, 25, 3] as they are, eight classes, 800 training and 400 test rows.

  Splits give a fifth of the training rows to validation, stratified.

  Args:
    seed: of all rows, default 0, that of the built-in set.
  """
  recipe = RECIPE if seed == 0 else f"{RECIPE} {seed}"
  return table_from_arrays(arrays(seed), name="skeletons", recipe=recipe)
