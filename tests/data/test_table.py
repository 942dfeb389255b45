import numpy as np
import pytest

from mmfuse.data import DataError, table_from_arrays

ROWS = 30


def table(**more):
  x = np.random.default_rng(0).normal(4, 2, (ROWS, 3))
  return table_from_arrays({"a": x, "label": np.arange(ROWS) % 3, **more})


def test_the_scaler_sees_training_rows_only():
  splits = table().splits()
  np.testing.assert_allclose(splits.train.inputs["a"].mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(splits.train.inputs["a"].std(0), 1, atol=1e-6)
  other = table()
  for split in (splits.validation, splits.test):
    other.inputs["a"][split.index] += 1000
  np.testing.assert_array_equal(other.splits().train.inputs["a"], splits.train.inputs["a"])


def test_seed_decides_unless_there_is_a_column():
  assert set(table().splits(0).test.index) != set(table().splits(1).test.index)
  np.testing.assert_array_equal(table().splits(1).test.index, table().splits(1).test.index)
  given = table(split=np.arange(ROWS) % 3)
  np.testing.assert_array_equal(given.splits(0).test.index, given.splits(1).test.index)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_test_every_row_once(grouped):
  data = table(group=np.arange(ROWS) // 3) if grouped else table()
  splits = [data.splits(fold=i, folds=5) for i in range(5)]
  assert sorted(np.concatenate([s.test.index for s in splits])) == list(range(ROWS))
  for i, s in enumerate(splits):
    np.testing.assert_array_equal(s.validation.index, splits[(i + 1) % 5].test.index)
    assert len(s.train.index) == 18 and s.fingerprint == data.fingerprint
    if grouped:
      assert not set(s.test.group) & (set(s.train.group) | set(s.validation.group))


def test_folds_do_not_use_the_column():
  data = table(split=np.repeat([0, 1, 2], 10))
  assert set(data.splits(fold=0, folds=3).test.index) != set(range(20, 30))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"folds": 5}, "fold and folds go together, got fold=None and folds=5"),
    ({"fold": 1}, "fold and folds go together"),
    ({"fold": 0, "folds": 2}, "folds must be at least 3 .* got 2"),
    ({"fold": 5, "folds": 5}, r"fold must lie in 0\.\.4, got 5"),
    ({"fold": 0, "folds": 31}, "folds=31 is more than the 30 rows"),
    ({"fractions": (0.5, 0.5)}, "three positive shares"),
  ],
)
def test_bad_splits(options, message):
  with pytest.raises(DataError, match=message):
    table().splits(**options)


def test_too_many_folds_for_the_groups():
  with pytest.raises(DataError, match="folds=5 is more than the 4 groups"):
    table(group=np.arange(ROWS) % 4).splits(fold=0, folds=5)


def test_notes():
  label = np.array([0, 1] * 10 + [2] * 10)
  split = np.repeat([0, 1, 2], [20, 5, 5])
  data = table(label=label, split=split, b=np.ones(ROWS), mask_b=split > 0)
  assert data.splits().notes == (
    "1 modality has no row in some part: b (train 0, validation 5, test 5)",
    "3 classes have no row in some part: 2 (train 0, validation 5, test 5), "
    "0 (train 10, validation 0, test 0), 1 (train 10, validation 0, test 0)",
  )
  assert table().splits().notes == ()


def test_labels_are_stratified():
  label = np.zeros((ROWS, 2), int)
  label[::2, 0] = 1
  label[[1, 3, 5, 7, 9], 1] = 1
  splits = table(label=label).splits()
  for part, positive in (
    (splits.train, [9, 3]),
    (splits.validation, [3, 1]),
    (splits.test, [3, 1]),
  ):
    np.testing.assert_array_equal(part.label.sum(0), positive)
  for fold in range(5):
    part = table(label=label).splits(fold=fold, folds=5).test
    np.testing.assert_array_equal(part.label.sum(0), [3, 1])


def test_sealed():
  splits = table().splits()
  assert splits.sealed().test is None and splits.test is not None
  np.testing.assert_array_equal(splits.sealed().train.label, splits.train.label)


def test_absent_rows_are_zero_after_scaling():
  mask = np.arange(ROWS) % 5 > 0
  data = table(mask_a=mask, b=np.ones(ROWS))
  for split in (data.splits().train, data.splits().test):
    assert not split.inputs["a"][~split.mask["a"]].any()
    assert split.inputs["a"][split.mask["a"]].all()
    np.testing.assert_array_equal(split.mask["a"], mask[split.index])


def test_num_outputs():
  assert table().num_outputs == 3
  assert table(label=np.ones((ROWS, 4), int) * [0, 1, 1, 0]).num_outputs == 4
  assert table(label=np.arange(ROWS) / 2).num_outputs == 1
  assert table(label=np.ones((ROWS, 2)) / 2).num_outputs == 2
