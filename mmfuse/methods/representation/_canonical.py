r"""Canonical correlation in closed form: maps of any number of modalities to one space. On the host.

Hotelling: "Relations Between Two Sets of Variates", Biometrika 28, 1936. Of more than two sets the
maps maximise the sum of all pairs' covariances (Horst, 1961; Kettenring, 1971, there SUMCOR) under one
constraint, which is an eigenproblem.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from mmfuse.core import Unavailable

MOST = 2000  # directions of a modality; of more, a sketch finds the leading ones
SKETCH = 400
_SMALL = 1e-10  # of the largest variance: rounding, no direction


class Map(NamedTuple):
  """x -> (x - mean) kernel."""

  mean: np.ndarray  # [D]
  kernel: np.ndarray  # [D, K], columns after the last correlation are 0


def principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(directions [D, r], variances [r]) of x^T x of x [N, D], those above rounding.

  The smaller of x^T x and x x^T is decomposed. Where both are larger than 2,000, the leading 400 are
  found by a sketch with a fixed seed (Halko, Martinsson, Tropp, 2011).
  """
  if min(x.shape) > MOST:
    draw = np.random.default_rng(0).normal(size=(x.shape[1], SKETCH))
    for _ in range(2):
      draw = np.linalg.qr(x.T @ (x @ draw))[0]
    inside, variances = _decomposed(x @ draw)
    return draw @ inside, variances
  return _decomposed(x)


def _decomposed(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  wide = x.shape[1] > x.shape[0]
  variances, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
  kept = variances > _SMALL * max(variances[-1], 0.0)
  variances, vectors = variances[kept], vectors[:, kept]
  return (x.T @ vectors / np.sqrt(variances) if wide else vectors), variances


def canonical_maps(
  x: Mapping[str, np.ndarray], weight: Mapping[str, np.ndarray], components: int, ridge: float
) -> dict[str, Map]:
  r"""{m: the map of x_m to K canonical variates}, each times its correlation.

  With S_mn the covariances over the rows that have both, and R_m = S_mm + ridge v_m I, v_m the mean
  variance of a column: the leading w of S_mn off the diagonal, \sum_{n != m} S_mn w_n = l R_m w_m. Of
  two modalities l is their correlation.

  Args:
    x: {m: [N, D_m]}, 0 where absent.
    weight: {m: [N]}, of the row, 0 where it lacks m.
    components: K.
    ridge: >= 0.

  Raises:
    Unavailable: no row has two of the modalities, or none of them varies.
  """
  names = sorted(x)
  means, halves, whitened, spread = {}, {}, {}, {}
  for m in names:
    w = weight[m] / max(weight[m].sum(), 1e-300)
    means[m] = w @ x[m]
    centred = np.where(w[:, None] > 0, x[m] - means[m], 0.0)
    spread[m] = np.sqrt(w @ np.square(centred))
    directions, variances = principal(np.sqrt(w)[:, None] * centred)
    floor = ridge * variances.sum() / x[m].shape[1]
    halves[m] = directions / np.sqrt(variances + floor)
    whitened[m] = centred @ halves[m]
  sizes = np.cumsum([0, *(halves[m].shape[1] for m in names)])
  place = {m: slice(a, b) for m, a, b in zip(names, sizes, sizes[1:])}
  joint = np.zeros((sizes[-1], sizes[-1]))
  pairs = 0
  for m, n in combinations(names, 2):
    w = np.where(weight[m] * weight[n] > 0, weight[m], 0.0)
    if w.sum() > 0:
      pairs += 1
      joint[place[m], place[n]] = (whitened[m] * w[:, None]).T @ whitened[n] / w.sum()
  if not pairs:
    raise Unavailable("it learns from rows that have two modalities, and no training row has")
  joint += joint.T
  size = len(joint)
  if not size:
    raise Unavailable("it correlates what varies, and no modality does over the training rows")
  first = max(0, size - components)
  values, vectors = eigh(joint, subset_by_index=(first, size - 1))
  values, vectors = values[::-1], vectors[:, ::-1]
  scale = np.where(values > _SMALL, values, 0.0)
  kernels = {m: halves[m] @ (vectors[place[m]] * scale) for m in names}
  # A variate has no sign of its own, nor have the directions it is found in: of its maps' entries,
  # each in standard deviations of its column, the largest is positive.
  entries = np.concatenate([kernels[m] * spread[m][:, None] for m in names])
  sign = np.where(entries[np.abs(entries).argmax(0), np.arange(len(values))] < 0, -1.0, 1.0)
  out = {}
  for m in names:
    kernel = np.zeros((x[m].shape[1], components))
    kernel[:, : len(values)] = kernels[m] * sign
    out[m] = Map(means[m], kernel)
  return out
