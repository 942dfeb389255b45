"""t intervals, paired differences and Holm's correction, on a handful of numbers per row."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # scipy.stats would cost most of the import time

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # of every test, after Holm's correction
_NOISE = 1e-7  # spreads below this are rounding of equal numbers: scores are float32


class Estimate(NamedTuple):
  """A mean with the half-width of its 95 % t interval."""

  mean: float  # in units of the metric
  half: float | None  # t_{.975, n-1} s / sqrt(n); None where n = 1: one number has no interval
  n: int  # units (seeds or folds) behind it


class Difference(NamedTuple):
  """A paired difference row - baseline, over the units both have."""

  mean: float  # in units of the metric; of a score of which more is better, positive: the row is
  half: float | None  # half-width of the 95 % paired t interval, None where there is none
  p: float | None  # two-sided paired t test, None where n = 1
  p_holm: float | None  # p after Holm's correction over the rows of the table
  n: int  # units both have

  @property
  def significant(self) -> bool:
    """Whether the difference is beyond noise: Holm-adjusted p < .05."""
    return self.p_holm is not None and self.p_holm < ALPHA


def estimate(values: Sequence[float] | np.ndarray) -> Estimate | None:
  """Mean and 95 % t interval of one value per unit; None without values."""
  x = np.asarray(values, np.float64)
  if x.size == 0:
    return None
  if x.size == 1:
    return Estimate(float(x[0]), None, 1)
  deviation = x.std(ddof=1)
  half = stdtrit(x.size - 1, 0.5 + LEVEL / 2) * deviation / math.sqrt(x.size)
  return Estimate(float(x.mean()), float(half) if deviation > _NOISE else 0.0, x.size)


def paired(values: Sequence[float], baseline: Sequence[float]) -> Difference | None:
  """The paired difference values - baseline over units; None without units. `p_holm` stays None.

  Differences that are all exactly 0 have the interval [0, 0] and p = 1. Where all are equal but not
  0, the t statistic is infinite and says nothing (scores come in steps of one row): there is no
  interval then and p = 2^(1 - n), the smallest that n signs can give. Raises ValueError for unequal
  lengths.
  """
  x, y = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
  if x.shape != y.shape:
    raise ValueError(f"a paired difference needs equally many values, got {x.size} and {y.size}")
  difference = estimate(x - y)
  if difference is None:
    return None
  mean, half, n = difference
  if half is None:
    return Difference(mean, None, None, None, n)
  if half == 0.0:
    if abs(mean) <= _NOISE:
      return Difference(0.0, 0.0, 1.0, None, n)
    return Difference(mean, None, 2.0 ** (1 - n), None, n)
  t = abs(mean) / half * stdtrit(n - 1, 0.5 + LEVEL / 2)
  return Difference(mean, half, float(2 * stdtr(n - 1, -t)), None, n)


def holm(p: Mapping[str, float]) -> dict[str, float]:
  """Holm-adjusted p values: max over j <= i of min(1, (k - j + 1) p_(j)), p_(1) <= ... <= p_(k).

  Reference: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist.
  1979.
  """
  adjusted, running = {}, 0.0
  for i, name in enumerate(sorted(p, key=lambda n: p[n])):
    running = max(running, min(1.0, (len(p) - i) * p[name]))
    adjusted[name] = running
  return {name: adjusted[name] for name in p}
