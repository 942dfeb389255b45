"""phantom and lesions: head-like slices in two modalities, where a lesion is what both say it is.

`a` shows tissues, and a lesion by a thin dark rim; `b` shows lesions bright. Bright spots without a rim
and rims without a bright disc (loops) look the same, so neither modality alone tells a lesion. Row i of
a part of a seed is a function of (seed, part, i) alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._splitting import SPLITS
from mmfuse.data._table import Table
from mmfuse.names import SEGMENTATION, VOID

RECIPE = "phantom-1"  # raise it whenever a pixel or a row's part would change
SIZES = (32, 64)  # pixels of a side
ROWS = {32: (400, 100, 200), 64: (1_000, 200, 500)}  # train, validation, test
# Intensities of air, scalp, grey, white, ventricle.
TISSUE_A = np.array([0.0, 0.30, 0.50, 0.70, 0.25])
TISSUE_B = np.array([0.0, 0.40, 0.50, 0.42, 0.15])
LESION, SPOT, LOOP = range(3)  # what a disc is
TRIES = 50  # to find a place for a disc


@dataclasses.dataclass(frozen=True)
class Anatomy:
  """What slices are drawn with; lengths are halves of a side, intensities lie in [0, 1]."""

  size: int = 64
  radius: tuple[float, float] = (0.12, 0.22)  # of a disc
  rim: float = 0.05  # its width
  rim_a: float = 0.26  # how much darker a rim is in `a`
  core: float = 0.0  # how much brighter the inside of a lesion is in `a`
  bright: float = 0.30  # how much brighter than grey a lesion or spot is in `b`
  warp: float = 0.06  # amplitude of what bends an ellipse
  bias: float = 0.20  # of the logarithm of the intensity field that both share
  noise_a: float = 0.06  # Rician
  noise_b: float = 0.05
  # probabilities of 0, 1, 2, ... of them
  lesions: tuple[float, ...] = (0.5, 0.3, 0.2)
  spots: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
  loops: tuple[float, ...] = (0.4, 0.4, 0.2)


P64 = Anatomy()
P32 = dataclasses.replace(P64, size=32, radius=(0.16, 0.26), rim=0.09)
LESIONS = dataclasses.replace(P32, spots=(0.5, 0.3, 0.2), loops=(1.0,), core=0.10)


class Slice(NamedTuple):
  """A row."""

  a: np.ndarray  # float32 [H, W] in [0, 1]
  b: np.ndarray
  mask: np.ndarray  # int32 [H, W]: 1 lesion, 0 the rest of the head, -1 outside
  tag: np.ndarray  # int32 []: 1 where there is a lesion
  spot: np.ndarray  # bool [H, W]
  head: np.ndarray  # bool [H, W]


class Disc(NamedTuple):
  """A warped disc that has found a place."""

  distance: np.ndarray  # [n, n] to its centre, in local radii
  radius: float


def smooth(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, amplitude: float) -> np.ndarray:
  r"""amplitude / \sqrt{6} \sum_k c_k sin(\pi (p_k u + q_k v) + f_k): six random waves over the slice."""
  terms = 6
  p, q = rng.uniform(-1.5, 1.5, (2, terms))
  c = rng.normal(size=terms)
  f = rng.uniform(0, 2 * np.pi, terms)
  along = p[:, None, None] * u + q[:, None, None] * v
  waves = np.sin(np.pi * along + f[:, None, None])
  return amplitude * np.tensordot(c, waves, 1) / np.sqrt(terms)


def _disc(
  rng: np.random.Generator,
  radius: tuple[float, float],
  rho: np.ndarray,
  u: np.ndarray,
  v: np.ndarray,
  taken: list[tuple[float, float, float]],
) -> Disc | None:
  """A disc inside the head, away from those `taken`, which it joins; None where there is no room."""
  for _ in range(TRIES):
    r = rng.uniform(*radius)
    x, y = rng.uniform(-0.75, 0.75, 2)
    f2, f3 = rng.uniform(0, 2 * np.pi, 2)
    nearest = np.unravel_index(np.argmin((u - x) ** 2 + (v - y) ** 2), u.shape)
    apart = all(np.hypot(x - a, y - b) > r + s + 0.06 for a, b, s in taken)
    if rho[nearest] < 0.72 and apart:
      taken.append((x, y, r))
      t = np.arctan2(v - y, u - x)
      local = r * (1 + 0.15 * np.sin(2 * t + f2) + 0.08 * np.sin(3 * t + f3))
      return Disc(np.hypot(u - x, v - y) / local, r)
  return None


def _half(x: np.ndarray) -> np.ndarray:
  """The mean of 2 x 2 cells."""
  n = len(x) // 2
  return np.asarray(x.reshape(n, 2, n, 2).mean((1, 3)))


def _scan(x: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
  """A magnitude image: |x + e_0 + i e_1|, e normal."""
  x = _half(x)
  e = rng.normal(0, noise, (2, *x.shape))
  return np.clip(np.hypot(x + e[0], e[1]), 0, 1).astype(np.float32)


def draw(seed: int, part: int, i: int, p: Anatomy = P32) -> Slice:
  """Row i of a part: 0 training, 1 validation, 2 test.

  It is painted on a grid of twice the size, and what is random has four streams, anatomy, places, noise
  of a and noise of b, so that each can be changed alone.
  """
  n = 2 * p.size
  t = (np.arange(n) + 0.5) / n * 2 - 1
  v, u = np.meshgrid(t, t, indexing="ij")
  anatomy, placing, noise_a, noise_b = (np.random.default_rng((seed, part, i, k)) for k in range(4))
  a, b = anatomy.uniform(0.74, 0.84), anatomy.uniform(0.84, 0.92)
  turn = anatomy.uniform(-0.17, 0.17)

  def ellipse():
    x = u + smooth(anatomy, u, v, p.warp)
    y = v + smooth(anatomy, u, v, p.warp)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.hypot(along / a, across / b)

  rho = ellipse()
  inner = [ellipse() for _ in range(3)]
  level = [0.88, anatomy.uniform(0.58, 0.68), anatomy.uniform(0.20, 0.28)]
  tissue = (rho < 1).astype(int)
  for k in range(3):
    tissue = np.where((tissue == k + 1) & (inner[k] < level[k]), k + 2, tissue)
  image_a, image_b = TISSUE_A[tissue], TISSUE_B[tissue]
  bias = np.exp(smooth(anatomy, u / 2, v / 2, p.bias))
  counts = [placing.choice(len(q), p=q) for q in (p.lesions, p.spots, p.loops)]
  taken: list[tuple[float, float, float]] = []
  mask, spot = np.zeros_like(u), np.zeros_like(u)
  for role in placing.permutation(np.repeat(np.arange(3), counts)):  # the same law for all three
    found = _disc(placing, p.radius, rho, u, v, taken)
    if found is None:
      continue
    inside = (found.distance < 1) & (rho < 1)
    edge = (np.abs(found.distance - 1) * found.radius < p.rim / 2) & (rho < 1)
    if role != SPOT:
      image_a = image_a - p.rim_a * edge
    if role != LOOP:
      image_b = np.where(inside, 0.5 + p.bright, image_b)
    if role == LESION:
      mask[inside] = 1
      image_a = image_a + p.core * (found.distance < 0.5)
    if role == SPOT:
      spot[inside] = 1
  head = _half(rho < 1.0) >= 0.5
  label = np.where(head, _half(mask) >= 0.5, VOID).astype(np.int32)
  return Slice(
    _scan(image_a * bias, noise_a, p.noise_a),
    _scan(image_b * bias, noise_b, p.noise_b),
    label,
    np.int32((label == 1).any()),  # type: ignore[arg-type]
    _half(spot) >= 0.5,
    head,
  )


def rows(seed: int, part: int, count: int, p: Anatomy = P32) -> Slice:
  """The first `count` rows of a part, stacked: a, b float32 [N, H, W] and so on."""
  found = [draw(seed, part, i, p) for i in range(count)]
  return Slice(*(np.stack(x) for x in zip(*found)))


def _parts(p: Anatomy, counts: Sequence[int], seed: int) -> Slice:
  made = [rows(seed, part, count, p) for part, count in enumerate(counts)]
  return Slice(*(np.concatenate(x) for x in zip(*made)))


def table(size: int = 32, seed: int = 0, counts: Sequence[int] | None = None) -> Table:
  """phantom: a and b float32 `[N, size, size, 1]`, label int `[N, size, size]`: 1 lesion, 0 rest, -1 void.

  Args:
    size: 32 (default, 400 / 100 / 200 rows) or 64 (1,000 / 200 / 500).
    seed: default 0, that of the built-in set.
    counts: rows of training, validation and test; default those of the size.

  Raises DataError for another size.
  """
  if size not in SIZES:
    raise DataError(f"phantom comes in the sizes 32 and 64, got {size}")
  counts = ROWS[size] if counts is None else counts
  made = _parts(P32 if size == 32 else P64, counts, seed)
  arrays = {"a": made.a, "b": made.b, "label": made.mask, "split": np.repeat(SPLITS, counts)}
  name = "phantom" if size == 32 else "phantom_64"
  recipe = f"{RECIPE} {seed} {size} {tuple(counts)}"
  return table_from_arrays(arrays, task=SEGMENTATION, name=name, recipe=recipe)


def lesions_table(seed: int = 0, counts: Sequence[int] = ROWS[32]) -> Table:
  """lesions: as phantom at 32, its label the tag of a slice, its masks `truth_mask`, for scores alone.

  There are no loops, half as many spots, and lesions have a faint core in `a`, so that each modality alone
  can learn the tag.

  Args:
    seed: default 0, that of the built-in set.
    counts: rows of training, validation and test; default 400, 100, 200.
  """
  made = _parts(LESIONS, counts, seed)
  arrays = {
    "a": made.a[..., None],
    "b": made.b[..., None],
    "label": made.tag,
    "truth_mask": made.mask,
    "split": np.repeat(SPLITS, counts),
  }
  recipe = f"{RECIPE} lesions {seed} {tuple(counts)}"
  return table_from_arrays(arrays, name="lesions", recipe=recipe)
