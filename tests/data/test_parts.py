"""Named parts, extras and truth, scales, and data without labels."""

import numpy as np
import pytest

from mmfuse import data
from mmfuse.data import DataError

RNG = np.random.default_rng(0)
ROWS = 40


def arrays(**changes):
  label = np.arange(ROWS) % 2
  found = {"a": RNG.normal(size=(ROWS, 3)), "b": RNG.uniform(2, 7, (ROWS, 4, 4, 1)), "label": label}
  return {k: v for k, v in {**found, **changes}.items() if v is not None}


def column(**further):
  """A split column: 20 training, 8 validation, 6 test rows, and the last ones as asked."""
  names = ["train"] * 20 + ["val"] * 8 + ["test"] * 6 + ["train"] * 6
  end = [n for n, count in further.items() for _ in range(count)]
  return np.asarray(names[: ROWS - len(end)] + end)


def test_a_split_column_may_name_further_parts_and_they_are_sealed():
  splits = data.from_arrays(arrays(split=column(query=2, ood=4)))
  assert {n: len(p) for n, p in splits.parts.items()} == {
    "train": 20,
    "validation": 8,
    "test": 6,
    "query": 2,
    "ood": 4,
  }
  assert splits.part("ood").index.tolist() == [36, 37, 38, 39]
  sealed = splits.sealed()
  assert set(sealed.parts) == {"train", "validation"} and sealed.test is None
  with pytest.raises(DataError, match="there is no part 'ood'"):
    sealed.part("ood")


def test_further_parts_touch_neither_the_scaler_nor_the_folds():
  given = arrays(split=column(shifted=6))
  plain = data.from_arrays(given)
  moved = {**given, "a": np.where(np.arange(ROWS)[:, None] >= 34, given["a"] * 100, given["a"])}
  np.testing.assert_array_equal(data.from_arrays(moved).train.inputs["a"], plain.train.inputs["a"])
  table = data.table_from_arrays(given)
  tested = []
  for fold in range(4):
    splits = table.splits(fold=fold, folds=4)
    assert splits.part("shifted").index.tolist() == list(range(34, 40))
    tested += splits.test.index.tolist()
  assert sorted(tested) == list(range(34))


def test_extras_travel_with_the_rows_and_truth_does_not():
  extra, truth = np.arange(ROWS), np.full((ROWS, 2, 2), np.nan)
  splits = data.from_arrays(arrays(extra_speaker=extra, truth_mask=truth))
  assert splits.modalities == ("a", "b")
  assert "no modality, kept beside: extra_speaker, truth_mask" in splits.notes
  part = splits.train
  np.testing.assert_array_equal(part.extra["speaker"], part.index)
  assert part.extra["speaker"].dtype == np.int32 and part.truth["mask"].shape[1:] == (2, 2)
  batches = list(part.batches(7, part.index.argsort()[:10]))
  assert [b.weight.sum() for b in batches] == [7, 3] and set(batches[0].extra) == {"speaker"}
  assert not any(m[3:].any() for m in batches[1].mask.values())
  np.testing.assert_array_equal(
    part.rows(part.label == 1).extra["speaker"], part.index[part.label == 1]
  )


@pytest.mark.parametrize(
  "name, value, message",
  [
    ("extra_x", np.full(ROWS, np.nan), "array 'extra_x' is NaN or infinite at row 0"),
    ("extra_x", np.arange(3), "array 'extra_x' has 3 rows, 'label' has 40"),
    ("truth_x", np.asarray(["u"] * ROWS), "array 'truth_x' has dtype <U1, expected numbers"),
    ("extra_", np.arange(ROWS), "expected a name after 'extra_'"),
    ("truth_x", np.full(ROWS, 2**40), "has integers beyond int32"),
  ],
)
def test_bad_extras(name, value, message):
  with pytest.raises(DataError, match=message):
    data.from_arrays(arrays(**{name: value}))


def test_extras_are_part_of_the_fingerprint():
  prints = {
    data.table_from_arrays(arrays(a=np.ones((ROWS, 1)), b=None, **more)).fingerprint
    for more in ({}, {"extra_x": np.arange(ROWS)}, {"truth_x": np.arange(ROWS)})
  }
  assert len(prints) == 3


def test_unit_and_raw_scales_come_from_training_rows_and_travel_with_the_scaler():
  given = arrays(split=column())
  given["b"][30] = 50.0  # a test row beyond what training has seen
  splits = data.from_arrays(given, scale={"b": "unit", "a": "raw"})
  assert "scale of a: as it is" in splits.notes
  assert any("of the training rows becomes 0..1" in n for n in splits.notes)
  x = splits.train.inputs["b"]
  assert x.min() == 0 and x.max() == 1 and splits.test.inputs["b"].max() == 1
  least, most = (f(given["b"][splits.train.index]) for f in (np.min, np.max))
  np.testing.assert_allclose(
    x, (given["b"][splits.train.index] - least) / (most - least), rtol=1e-6
  )
  np.testing.assert_allclose(splits.train.inputs["a"], given["a"][splits.train.index], rtol=1e-6)
  again = data.Scaler.from_json(splits.scaler.to_json())
  everyone = {m: np.ones(ROWS, bool) for m in "ab"}
  found = again.apply({m: given[m] for m in "ab"}, everyone)["b"]
  np.testing.assert_array_equal(found[splits.test.index], splits.test.inputs["b"])
  plain = data.from_arrays(given, scale={"a": "standard"})
  np.testing.assert_array_equal(plain.train.inputs["a"], data.from_arrays(given).train.inputs["a"])


@pytest.mark.parametrize(
  "scale, message",
  [
    ({"c": "unit"}, "scale names 'c', which is no modality"),
    ({"a": "log"}, "the scale of 'a' must be standard, unit or raw, got 'log'"),
    ({"t": "unit"}, "modality 't' holds tokens"),
  ],
)
def test_bad_scales(scale, message):
  tokens = RNG.integers(0, 5, (ROWS, 3))
  table = data.table_from_arrays(arrays(t=tokens), encoders={"t": "embedding"})
  with pytest.raises(DataError, match=message):
    table.splits(scale=scale)


def test_labels_may_be_left_out_only_where_the_task_needs_none():
  with pytest.raises(DataError, match=r"no array is called .label.*--task generation"):
    data.from_arrays(arrays(label=None))
  splits = data.from_arrays(arrays(label=None), task="generation")
  assert splits.train.label is None and (splits.num_outputs, splits.task) == (0, "generation")
  assert {n: len(p) for n, p in splits.parts.items()} == {"train": 24, "validation": 8, "test": 8}
  batch = next(splits.train.batches(5))
  assert batch.label is None and batch.weight.tolist() == [1.0] * 5
  kept = data.from_arrays(arrays(), task="generation")  # labels that are there stay beside
  assert kept.task == "generation" and set(np.unique(kept.train.label)) == {0, 1}
