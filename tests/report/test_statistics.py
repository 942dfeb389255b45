"""Intervals, paired tests, Holm: by hand and against scipy.stats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmfuse import report


def test_estimate_by_hand():
  mean, half, n = report.estimate([1.0, 2.0, 3.0])
  assert (mean, n) == (2.0, 3)
  assert half == pytest.approx(4.302652729696142 / np.sqrt(3))  # t_{.975, 2}, s = 1


def test_one_number_has_no_interval_and_none_no_estimate():
  assert report.estimate([0.7]) == report.Estimate(0.7, None, 1)
  assert report.estimate([]) is None
  assert report.estimate([0.7, 0.7, 0.7]) == report.Estimate(pytest.approx(0.7), 0.0, 3)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_against_scipy(n):
  rng = np.random.default_rng(n)
  x, y = rng.normal(size=n), rng.normal(0.5, 1, n)
  low, high = stats.t.interval(0.95, n - 1, x.mean(), stats.sem(x))
  mean, half, _ = report.estimate(x)
  assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
  oracle = stats.ttest_rel(x, y)
  found = report.paired(x, y)
  assert found.p == pytest.approx(oracle.pvalue)
  interval = oracle.confidence_interval(0.95)
  assert (found.mean - found.half, found.mean + found.half) == (
    pytest.approx(interval.low),
    pytest.approx(interval.high),
  )


def test_paired_by_hand():
  # Differences 1, 2, 3: mean 2, s = 1, t = 2 sqrt(3), two degrees of freedom.
  found = report.paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
  t = 2 * np.sqrt(3)
  assert found.mean == 2.0
  assert found.p == pytest.approx(1 - t / np.sqrt(2 + t * t))  # the t distribution with 2 degrees
  assert not found.significant  # not before Holm's correction says so


def test_identical_rows_differ_by_exactly_nothing():
  x = [0.1, 0.7, 0.3]
  assert report.paired(x, x) == report.Difference(0.0, 0.0, 1.0, None, 3)


def test_equal_differences_are_not_a_certainty():
  x = np.array([0.1, 0.7, 0.3])
  found = report.paired(x + 0.01, x)
  assert found.mean == pytest.approx(0.01)
  assert found.half is None
  assert found.p == 0.25  # 2^(1 - 3)


def test_one_pair_has_no_test():
  assert report.paired([0.5], [0.4]) == report.Difference(pytest.approx(0.1), None, None, None, 1)
  assert report.paired([], []) is None
  with pytest.raises(ValueError, match="got 2 and 1"):
    report.paired([1, 2], [1])


def test_holm_by_hand():
  # Sorted .01, .02, .03, .04: times 4, 3, 2, 1 = .04, .06, .06, .04, then the running maximum.
  found = report.holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02})
  assert list(found) == ["c", "a", "d", "b"]
  assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
  assert report.holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
  assert report.holm({}) == {}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p):
  raw = {str(i): v for i, v in enumerate(p)}
  found = report.holm(raw)
  for i in raw:
    assert raw[i] <= found[i] <= min(1.0, len(p) * raw[i])
    for j in raw:
      assert raw[i] > raw[j] or found[i] <= found[j]
