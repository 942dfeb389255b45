import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse.data import DataError, _splitting

FRACTIONS = (0.6, 0.2, 0.2)
counts = st.lists(st.integers(1, 12), min_size=1, max_size=8)


def test_by_class_by_hand():
  parts = _splitting.by_class(np.array([0] * 10 + [1] * 5), FRACTIONS, 0)
  np.testing.assert_array_equal(np.bincount(parts[:10]), [6, 2, 2])
  np.testing.assert_array_equal(np.bincount(parts[10:]), [3, 1, 1])


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(0, 3))
def test_by_class_properties(sizes, seed):
  strata = np.repeat(np.arange(len(sizes)), sizes)
  parts = _splitting.by_class(strata, FRACTIONS, seed)
  np.testing.assert_array_equal(parts, _splitting.by_class(strata, FRACTIONS, seed))
  for c, size in enumerate(sizes):
    seen = np.bincount(parts[strata == c], minlength=3)
    assert seen.sum() == size
    if size >= 3:
      assert (seen > 0).all()
  if len(strata) >= 3:
    assert (np.bincount(parts, minlength=3) > 0).all()


def test_rounding_is_carried_over_small_classes():
  parts = _splitting.by_class(np.repeat(np.arange(100), 4), FRACTIONS, 0)  # 2.4 / .8 / .8 each
  np.testing.assert_allclose(np.bincount(parts) / 400, [0.5, 0.25, 0.25], atol=0.01)  # 2 / 1 / 1
  parts = _splitting.by_class(np.repeat(np.arange(100), 6), FRACTIONS, 0)  # 3.6 / 1.2 / 1.2 each
  np.testing.assert_allclose(np.bincount(parts) / 600, FRACTIONS, atol=0.01)


def test_classes_of_one_row_fill_every_part():
  assert set(_splitting.by_class(np.arange(5), FRACTIONS, 0)) == {0, 1, 2}


def test_seed_changes_the_rows():
  strata = np.zeros(50, int)
  parts = [_splitting.by_class(strata, FRACTIONS, seed) for seed in (0, 1)]
  assert (parts[0] != parts[1]).any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=3, max_size=10), st.integers(0, 3))
def test_by_group_properties(sizes, seed):
  group = np.repeat(np.arange(len(sizes)) * 7, sizes)
  parts = _splitting.by_group(group, FRACTIONS, seed)
  assert set(parts) == {0, 1, 2}
  for g in np.unique(group):
    assert len(set(parts[group == g])) == 1


def test_by_group_sizes_and_seeds():
  group = np.repeat(np.array([f"s{i}" for i in range(10)]), 20)
  splits = [_splitting.by_group(group, FRACTIONS, seed) for seed in range(3)]
  for parts in splits:
    np.testing.assert_array_equal(np.bincount(parts), [120, 40, 40])
  assert (splits[0] != splits[1]).any()


def test_too_few_groups():
  with pytest.raises(DataError, match=r"group has 2 different values, .* at least 3"):
    _splitting.by_group(np.array([0, 0, 1, 1]), FRACTIONS, 0)


def test_folds_by_group_balance_rows():
  group = np.repeat(np.arange(6), [50, 10, 10, 10, 10, 10])
  parts = _splitting.folds_by_group(group, 3, 0)
  assert len(set(parts[group == 0])) == 1
  assert sorted(np.bincount(parts)) == [20, 30, 50]  # the large group is alone
  with pytest.raises(DataError, match="folds=7 is more than the 6 groups"):
    _splitting.folds_by_group(group, 7, 0)


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(3, 5), st.integers(0, 3))
def test_folds_by_class_properties(sizes, folds, seed):
  strata = np.repeat(np.arange(len(sizes)), sizes)
  if folds > len(strata):
    with pytest.raises(DataError, match=f"folds={folds} is more than the {len(strata)} rows"):
      _splitting.folds_by_class(strata, folds, seed)
    return
  parts = _splitting.folds_by_class(strata, folds, seed)
  assert np.ptp(np.bincount(parts, minlength=folds)) <= 1
  for c in range(len(sizes)):
    assert np.ptp(np.bincount(parts[strata == c], minlength=folds)) <= 1


def test_of_fold():
  parts = np.array([0, 1, 2, 3, 0])
  np.testing.assert_array_equal(_splitting.of_fold(parts, 0, 4), [2, 1, 0, 0, 2])
  np.testing.assert_array_equal(_splitting.of_fold(parts, 3, 4), [1, 0, 0, 2, 1])


def _label_counts(labels, parts, number):
  return np.stack([(labels[parts == p] > 0).sum(0) for p in range(number)])


def test_by_labels_by_hand():
  labels = np.zeros((20, 3), int)
  labels[:10, 0] = 1  # 10 rows: 6 / 2 / 2
  labels[5:8, 1] = 1  # 3 rows: one in each part
  labels[19, 2] = 1  # 1 row: it trains
  parts = _splitting.by_labels(labels, FRACTIONS, 0)
  np.testing.assert_array_equal(np.bincount(parts), [12, 4, 4])
  np.testing.assert_array_equal(_label_counts(labels, parts, 3), [[6, 1, 1], [2, 1, 0], [2, 1, 0]])


def test_a_label_of_two_rows_trains_and_tests():
  labels = np.zeros((30, 1), int)
  labels[[4, 9]] = 1
  for seed in range(5):
    assert sorted(_splitting.by_labels(labels, FRACTIONS, seed)[[4, 9]]) == [0, 2]


rows_of_labels = st.lists(
  st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=60
).map(np.asarray)


@settings(max_examples=40, deadline=None)
@given(rows_of_labels, st.integers(0, 3))
def test_by_labels_properties(labels, seed):
  parts = _splitting.by_labels(labels, FRACTIONS, seed)
  np.testing.assert_array_equal(parts, _splitting.by_labels(labels, FRACTIONS, seed))
  sizes = np.bincount(parts, minlength=3)
  assert (sizes > 0).all() and np.abs(sizes - np.multiply(FRACTIONS, len(labels))).max() <= 2
  counts = _label_counts(labels, parts, 3)
  rarest = np.argmin(np.where(labels.any(0), labels.sum(0), 99))
  if labels[:, rarest].sum() >= 3:  # it is dealt first, when every part has room
    assert (counts[:, rarest] > 0).all()


@settings(max_examples=40, deadline=None)
@given(rows_of_labels, st.integers(3, 5), st.integers(0, 3))
def test_folds_by_labels_properties(labels, folds, seed):
  if folds > len(labels):
    with pytest.raises(DataError, match=f"folds={folds} is more than the {len(labels)} rows"):
      _splitting.folds_stratified(labels, folds, seed)
    return
  parts = _splitting.folds_stratified(labels, folds, seed)
  assert np.ptp(np.bincount(parts, minlength=folds)) <= 1
  rarest = np.argmin(np.where(labels.any(0), labels.sum(0), 99))
  assert np.ptp(_label_counts(labels, parts, folds)[:, rarest]) <= 1


def test_labels_are_held_more_alike_than_by_chance():
  rng = np.random.default_rng(0)
  labels = (rng.random((200, 8)) < [0.5, 0.3, 0.2, 0.1, 0.08, 0.06, 0.04, 0.03]).astype(int)
  wanted = np.outer(FRACTIONS, labels.sum(0))
  apart = lambda parts: np.abs(_label_counts(labels, parts, 3) - wanted).max()
  assert apart(_splitting.by_labels(labels, FRACTIONS, 0)) < 2
  assert min(apart(_splitting.by_class(np.zeros(200), FRACTIONS, s)) for s in range(5)) > 3
  assert (
    _splitting.by_labels(labels, FRACTIONS, 0) != _splitting.by_labels(labels, FRACTIONS, 1)
  ).any()
