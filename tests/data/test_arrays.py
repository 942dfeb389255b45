import doctest

import numpy as np
import pytest

from mmfuse.data import DataError, _arrays, from_arrays, table_from_arrays


def arrays(rows=20, **more):
  rng = np.random.default_rng(0)
  return {
    "a": rng.normal(size=(rows, 3)),
    "b": rng.normal(size=(rows, 5, 2)),
    "label": np.arange(rows) % 2,
    **more,
  }


def test_docstring():
  result = doctest.testmod(_arrays)
  assert result.attempted and not result.failed


def test_split_by_fractions():
  splits = from_arrays(arrays(), split=(0.5, 0.2, 0.3))
  assert [len(s.label) for s in (splits.train, splits.validation, splits.test)] == [10, 4, 6]
  rows = np.concatenate([splits.train.index, splits.validation.index, splits.test.index])
  assert sorted(rows) == list(range(20)) and rows.dtype == np.int32
  assert splits.modalities == ("a", "b") and splits.num_classes == 2


def test_default_is_stratified_60_20_20():
  splits = from_arrays(arrays())
  for split, size in ((splits.train, 12), (splits.validation, 4), (splits.test, 4)):
    np.testing.assert_array_equal(np.bincount(split.label), [size // 2, size // 2])


def test_groups_stay_together():
  group = np.repeat(np.arange(10), 2)
  splits = from_arrays(arrays(group=group))
  parts = [set(s.group.tolist()) for s in (splits.train, splits.validation, splits.test)]
  assert sum(map(len, parts)) == 10 == len(set.union(*parts))


@pytest.mark.parametrize("dtype", ["names", "bytes", "numbers"])
def test_split_array(dtype):
  names = np.array(["train"] * 10 + ["validation"] * 6 + ["test"] * 4)
  column = {"names": names, "bytes": names.astype("S"), "numbers": np.repeat([0, 1, 2], [10, 6, 4])}
  splits = from_arrays(arrays(split=column[dtype]))
  np.testing.assert_array_equal(splits.validation.index, np.arange(10, 16))
  assert len(splits.test.label) == 4


def test_another_label_name():
  renamed = arrays()
  renamed["y"] = renamed.pop("label")
  assert from_arrays(renamed, label="y").modalities == ("a", "b")


def test_encoders_and_task_travel():
  splits = from_arrays(arrays(t=np.ones((20, 4), int)), encoders={"t": "embedding"})
  assert splits.encoders == {"t": "embedding"} and splits.train.inputs["t"].dtype == np.int32
  splits = from_arrays(arrays(), task="regression")
  assert (splits.task, splits.num_outputs, splits.class_names) == ("regression", 1, ())


def test_rows_without_a_modality():
  mask = np.ones(20, bool)
  mask[[3, 7]] = False
  bad = arrays(mask_a=mask, mask_b=mask)
  with pytest.raises(DataError, match=r"2 of 20 rows have no modality present, the first is row 3"):
    table_from_arrays(bad)
  table = table_from_arrays(bad, drop_empty=True)
  assert len(table.label) == 18 and table.notes == ("2 rows without a modality dropped",)
  np.testing.assert_array_equal(table.inputs["a"], bad["a"][mask])
  with pytest.raises(DataError, match="no row has a modality"):
    table_from_arrays(arrays(mask_a=~mask & mask, mask_b=~mask & mask), drop_empty=True)


def test_garbage_in_absent_rows_changes_nothing():
  mask = np.ones(20, bool)
  mask[2:5] = False
  tables = []
  for garbage in (np.nan, np.inf, 1e30, 0.0):
    x = arrays(mask_a=mask)
    x["a"][2:5] = garbage
    tables.append(table_from_arrays(x))
  for table in tables[1:]:
    assert table.fingerprint == tables[0].fingerprint
    np.testing.assert_array_equal(table.inputs["a"], tables[0].inputs["a"])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"label": np.ones(19, int)}, "array 'a' has 20 rows, 'label' has 19"),
    ({"label": np.zeros(0, int)}, "label 'label' is empty"),
    ({"label": np.ones(20, int)}, "one class only"),
    ({"split": ["train"] * 20}, "the validation split is empty: train 20, validation 0, test 0"),
    ({"split": ["train"] * 19 + ["eval"]}, "0, 1 or 2, got 'eval' at row 19"),
    ({"split": [0] * 19 + [3]}, "got 3 at row 19"),
    ({"split": [0.0] * 20}, "got 0.0 at row 0"),
    ({"split": [0] * 19}, r"'split' must be \[20\].* got \[19\]"),
    ({"group": np.ones((20, 2))}, r"'group' must be \[20\]"),
    ({"group": [np.nan] * 20}, "group must be integers or strings without NaN"),
    ({"group": [0, 1] * 10}, "group has 2 different values"),
    ({"mask_c": np.ones(20, bool)}, "mask_c belongs to no modality"),
    ({"fused": np.ones(20)}, "a modality cannot be called 'fused'"),
  ],
)
def test_bad_arrays(change, message):
  with pytest.raises(DataError, match=message):
    from_arrays(arrays(**change))


def test_bad_calls():
  with pytest.raises(DataError, match="no array is called 'labl'; closest: label"):
    from_arrays(arrays(), label="labl")
  with pytest.raises(DataError, match=r"no modality: .* the arrays are label"):
    from_arrays({"label": np.arange(4)})
  with pytest.raises(DataError, match="both an array 'split' and split="):
    from_arrays(arrays(split=[0] * 20), split=(0.6, 0.2, 0.2))
  with pytest.raises(DataError, match=r"expected arrays by name, .* got list"):
    from_arrays([1, 2])
  with pytest.raises(DataError, match=r"expected arrays by name, .* got the key 3"):
    from_arrays({"label": np.arange(4), 3: np.ones(4)})
  for fractions in ("abc", (0.8, 0.2), (0.8, 0.3, 0.1), (1, 0, 0), (np.nan, 0.5, 0.5)):
    with pytest.raises(DataError, match="three positive shares"):
      from_arrays(arrays(), split=fractions)
  with pytest.raises(DataError, match="unknown task"):
    from_arrays(arrays(), task="ranking")
