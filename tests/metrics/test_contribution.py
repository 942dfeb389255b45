"""Contributions: by hand, efficiency and symmetry of Shapley values."""

from itertools import chain, combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse import metrics


def subsets(names):
  return list(chain.from_iterable(combinations(names, k) for k in range(len(names) + 1)))


def test_contribution_by_hand():
  scores = {("b", "a"): 0.9, ("a",): 0.7, ("b",): 0.4}
  assert metrics.contribution(scores) == pytest.approx({"a": 0.5, "b": 0.2})
  assert metrics.contribution({("a",): 0.7, (): 0.25}) == pytest.approx({"a": 0.45})


def test_contribution_needs_only_the_leave_one_out_sets():
  scores = {("a", "b", "c"): 1.0, ("a", "b"): 0.9, ("a", "c"): 0.5, ("b", "c"): 1.1}
  assert metrics.contribution(scores) == pytest.approx({"a": -0.1, "b": 0.5, "c": 0.1})


def test_shapley_by_hand():
  scores = {(): 0.5, ("a",): 0.7, ("b",): 0.6, ("a", "b"): 0.9}
  expected = {"a": (0.2 + 0.3) / 2, "b": (0.1 + 0.2) / 2}
  assert metrics.shapley(scores) == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=16, max_size=16))
def test_shapley_is_efficient_and_the_mean_over_orders(values):
  names = ("a", "b", "c", "d")
  scores = dict(zip(subsets(names), values))
  phi = metrics.shapley(scores)
  assert sum(phi.values()) == pytest.approx(scores[names] - scores[()], abs=1e-9)
  orders = list(permutations(names))
  for m in names:
    gains = []
    for order in orders:
      before = tuple(sorted(order[: order.index(m)]))
      gains.append(scores[tuple(sorted((*before, m)))] - scores[before])
    assert phi[m] == pytest.approx(sum(gains) / len(orders), abs=1e-9)


def test_shapley_of_a_modality_that_adds_nothing_is_zero():
  scores = {s: 0.3 * ("a" in s) + 0.2 * ("b" in s) for s in subsets(("a", "b", "c"))}
  assert metrics.shapley(scores) == pytest.approx({"a": 0.3, "b": 0.2, "c": 0.0})


def test_what_is_missing_is_named():
  with pytest.raises(ValueError, match=r"\('b',\) is needed, given are: \('a',\), \('a', 'b'\)"):
    metrics.contribution({("a", "b"): 1.0, ("a",): 0.5})
  with pytest.raises(ValueError, match=r"subset \(\) is needed"):
    metrics.shapley({("a",): 0.5})
  with pytest.raises(ValueError, match="got none"):
    metrics.contribution({})
  with pytest.raises(TypeError, match=r"got the string 'ab'; write \('ab',\)"):
    metrics.shapley({"ab": 1.0})
