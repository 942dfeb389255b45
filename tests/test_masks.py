"""Masks: combinations, samplers, missing tables, application."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse import masks

NAMES = st.lists(st.sampled_from("abcdef"), unique=True, min_size=1, max_size=5)


def test_combinations_come_in_the_order_of_the_fields_tables():
  assert masks.combinations(("x", "y", "z")) == [
    ("x",),
    ("y",),
    ("z",),
    ("x", "y"),
    ("x", "z"),
    ("y", "z"),
    ("x", "y", "z"),
  ]


@given(NAMES)
@settings(max_examples=30, deadline=None)
def test_combinations_are_all_and_each_once(names):
  found = masks.combinations(names)
  assert len(found) == len(set(found)) == 2 ** len(names) - 1
  assert found[-1] == tuple(names) and all(found)
  assert [len(s) for s in found] == sorted(len(s) for s in found)


def test_full_and_only():
  mask = masks.full(("b", "a"), 2)
  assert list(mask) == ["a", "b"] and mask["a"].tolist() == [True, True]
  mask["a"] = jnp.asarray([True, False])
  found = masks.only(mask, ("a",))
  assert found["a"].tolist() == [True, False] and found["b"].tolist() == [False, False]
  with pytest.raises(ValueError, match="modality 'c' not in mask; available: a, b"):
    masks.only(mask, ("a", "c"))


def test_bernoulli_drops_at_the_rate_and_never_the_last_modality():
  rows = 4000
  mask = {"a": jnp.ones(rows, bool), "b": jnp.ones(rows, bool), "c": jnp.arange(rows) % 2 == 0}
  found = masks.sample_bernoulli(jax.random.key(0), mask, 0.5)
  kept = jnp.stack([found[m] for m in "abc"])
  assert bool(kept.any(0).all())
  assert not bool((found["c"] & ~mask["c"]).any())  # what was absent stays absent
  # Rows of two: P(a kept) = .5 + P(all dropped) = .75; rows of three: .5 + .125.
  odd = np.arange(rows) % 2 == 1
  assert float(found["a"][odd].mean()) == pytest.approx(0.75, abs=0.03)
  assert float(found["a"][~odd].mean()) == pytest.approx(0.625, abs=0.03)
  same = masks.sample_bernoulli(jax.random.key(1), mask, 0.0)
  assert all((same[m] == mask[m]).all() for m in mask)
  all_kept = masks.sample_bernoulli(jax.random.key(1), mask, 1.0)
  assert all((all_kept[m] == mask[m]).all() for m in mask)  # every draw loses everything


@given(st.integers(0, 99), st.integers(1, 60), st.floats(0, 1), NAMES.filter(lambda n: len(n) > 1))
@settings(max_examples=50, deadline=None)
def test_missing_table_properties(seed, rows, rate, names):
  table = masks.missing_table(seed, rows, rate, names)
  absent = np.stack([~table[m] for m in sorted(names)])
  assert sorted(table) == list(table) == sorted(names)
  assert absent.sum() == int(rows * rate)
  assert absent.sum(0).max(initial=0) <= 1  # a row loses one modality at most
  count = int(rows * rate)
  assert absent.sum(1)[:-1].tolist() == [count // len(names)] * (len(names) - 1)
  again = masks.missing_table(seed, rows, rate, names[::-1])
  assert all((again[m] == table[m]).all() for m in names)


def test_missing_table_refuses_the_impossible():
  with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\], got 1.5"):
    masks.missing_table(0, 4, 1.5, ("a", "b"))
  with pytest.raises(ValueError, match="at least two modalities"):
    masks.missing_table(0, 4, 0.5, ("a",))
  assert masks.missing_table(0, 4, 0.0, ("a",))["a"].all()


def test_fill_selects_so_that_nan_is_never_read():
  inputs = {
    "a": jnp.asarray([[jnp.nan, 1.0], [2.0, 3.0]]),
    "b": {"tokens": jnp.asarray([[5, 6], [7, 8]]), "length": jnp.asarray([2, 2])},
  }
  mask = {"a": jnp.asarray([False, True]), "b": jnp.asarray([True, False])}
  found = masks.fill(inputs, mask)
  np.testing.assert_array_equal(found["a"], [[0, 0], [2, 3]])
  np.testing.assert_array_equal(found["b"]["tokens"], [[5, 6], [0, 0]])
  np.testing.assert_array_equal(found["b"]["length"], [2, 0])
  assert found["b"]["tokens"].dtype == inputs["b"]["tokens"].dtype
  np.testing.assert_array_equal(masks.fill(inputs, mask, -1.0)["a"][0], [-1, -1])
  gradient = jax.grad(lambda x: masks.fill({"a": x}, {"a": mask["a"]})["a"].sum())(inputs["a"])
  np.testing.assert_array_equal(gradient, [[0, 0], [1, 1]])


def test_a_table_of_one_kind_and_the_order_of_losers():
  table = masks.missing_table(0, 20, 0.5, ("a", "b"), "b")
  assert table["a"].all() and (~table["b"]).sum() == 10
  assert masks.losses([4, 2, 9, 7, 1], ("x", "y")) == {"x": [4, 2], "y": [9, 7, 1]}
  assert masks.losses([4, 2], ("even", "y"), "even") == {"even": [4, 2], "y": []}
  with pytest.raises(ValueError, match="unknown kind 'z'; expected even or one of: x, y"):
    masks.losses([1], ("x", "y"), "z")


def test_a_row_never_loses_its_last_modality_to_a_table():
  mask = {"a": np.array([True, True]), "b": np.array([False, True])}
  found = masks.without(mask, {"a": np.array([False, False]), "b": np.array([True, True])})
  assert found["a"].tolist() == [True, False] and found["b"].tolist() == [False, True]


def test_subsets_are_drawn_uniformly_from_what_a_row_has():
  rows = 7000
  mask = {m: jnp.ones(rows, bool) for m in "abc"}
  mask["b"] = jnp.arange(rows) % 7 > 0
  found = masks.sample_subset(jax.random.key(0), mask)
  code = sum(2**i * np.asarray(found[m]) for i, m in enumerate("abc"))
  counts = np.bincount(code[np.asarray(mask["b"])], minlength=8)
  assert counts[0] == 0
  np.testing.assert_allclose(counts[1:] / counts.sum(), 1 / 7, atol=0.02)
  fewer = np.bincount(code[~np.asarray(mask["b"])], minlength=8)
  assert set(np.flatnonzero(fewer)) == {1, 4, 5}
  np.testing.assert_allclose(fewer[[1, 4, 5]] / fewer.sum(), 1 / 3, atol=0.06)
  nothing = masks.sample_subset(jax.random.key(0), {"a": jnp.zeros(3, bool)})
  assert not nothing["a"].any()
