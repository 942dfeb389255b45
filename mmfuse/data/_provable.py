r"""Overlapping modalities: a regression whose best error is known for every subset of modalities.

The generator of Huang, Du, Xue, Chen, Zhao, Huang: "What Makes Multi-Modal Learning Better than
Single (Provably)", NeurIPS 2021, arXiv 2106.04538 (as recalled: the paper's appendix was not seen).
M base vectors m_1..m_M ~ N(0, I_D); x_1 = m_1, x_i = (1 - w) m_i + w m_1 for i >= 2; the target
y = \sum_i \sum_c x_ic is free of noise. At w = 0 modalities share nothing, at w = 1 all are equal.
"""

from collections.abc import Collection

import numpy as np

NUM_MODALITIES, WIDTH = 4, 100  # of the paper
OVERLAPS = (1.0, 0.8, 0.5, 0.2, 0.0)


def check_overlap(overlap: float) -> float:
  """`overlap` as a float in [0, 1], or a sentence."""
  if not 0 <= overlap <= 1:
    raise ValueError(f"overlap must lie in [0, 1], got {overlap}")
  return float(overlap)


def overlapping(base: np.ndarray, overlap: float) -> tuple[np.ndarray, np.ndarray]:
  """(x [M, N, D], y [N]) of base vectors m [M, N, D] and w = `overlap`: the formula above.

  Raises:
    ValueError: an overlap outside [0, 1], or a base of another rank.
  """
  overlap, base = check_overlap(overlap), np.asarray(base)
  if base.ndim != 3:
    raise ValueError(f"base must be [M, N, D], got the shape {list(base.shape)}")
  x = (1 - overlap) * base + overlap * base[:1]
  x[0] = base[0]
  return x, x.sum((0, 2))


def overlapping_arrays(
  seed: int,
  rows: int,
  overlap: float,
  *,
  num_modalities: int = NUM_MODALITIES,
  width: int = WIDTH,
) -> dict[str, np.ndarray]:
  """{"m1": float32 [N, D], ..., "mM": ..., "label": float32 [N]}: input of `data.from_arrays`.

  The least error that any model can reach on them is `overlapping_risk`.

  Args:
    seed: of the base vectors.
    rows: N.
    overlap: w in [0, 1] (paper: 1, .8, .5, .2, 0).
    num_modalities: M, default 4 (paper).
    width: D, default 100 (paper).

  Raises:
    ValueError: an overlap outside [0, 1].
  """
  base = np.random.default_rng(seed).normal(size=(num_modalities, rows, width))
  x, y = overlapping(base, overlap)
  return {f"m{i + 1}": x[i].astype(np.float32) for i in range(num_modalities)} | {
    "label": y.astype(np.float32)
  }


def overlapping_risk(
  subset: Collection[int],
  overlap: float,
  *,
  num_modalities: int = NUM_MODALITIES,
  width: int = WIDTH,
) -> float:
  """The least E|y - h(x_S)|^2 over all h, for a subset S of 1..M: the conditional variance of y.

  With s = |S|, and since given x_S what is unknown are m_1 and the m_i outside S,

    1 in S:      D (M - s) (1 - w)^2
    1 not in S:  D [(1 + (M - 1 - s) w)^2 (1 - w)^2 / ((1 - w)^2 + s w^2) + (M - 1 - s) (1 - w)^2].

  The second line with s = 0 is the variance of y. At w = 1 any modality gives 0.

  Args:
    subset: S.
    overlap: w in [0, 1].
    num_modalities, width: M and D, default 4 and 100 (paper).

  Raises:
    ValueError: an overlap outside [0, 1], or members outside 1..M.
  """
  w, members = check_overlap(overlap), set(subset)
  if not members <= set(range(1, num_modalities + 1)):
    raise ValueError(f"subset must lie in 1..{num_modalities}, got {sorted(members)}")
  size, own = len(members), (1 - w) ** 2
  if 1 in members:
    return width * (num_modalities - size) * own
  others = num_modalities - 1 - size
  spread = own + size * w**2  # of the mean of x_S around m_1, times size
  first = own / spread if spread > 0 else 0.0  # variance of m_1 given x_S
  if size == 0:
    first = 1.0
  return width * ((1 + others * w) ** 2 * first + others * own)


def overlapping_correlation(overlap: float) -> float:
  """w / sqrt((1 - w)^2 + w^2): of a coordinate of x_i, i >= 2, with the same one of x_1."""
  w = check_overlap(overlap)
  return w / np.hypot(1 - w, w)
