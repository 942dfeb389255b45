"""The door for segmentation: labels of places, maps of one size."""

import numpy as np
import pytest

from mmfuse import data

ROWS, SIZE = 12, (5, 7)


def arrays(**changes):
  rng = np.random.default_rng(0)
  made = {
    "a": rng.normal(size=(ROWS, *SIZE)),
    "b": rng.normal(size=(ROWS, *SIZE, 3)),
    "label": rng.integers(0, 3, (ROWS, *SIZE)),
  }
  return {**made, **changes}


def test_a_label_of_three_axes_is_a_segmentation_and_a_note_says_so():
  label = arrays()["label"] * 5  # classes 0, 5, 10
  label[0, 0] = -1
  splits = data.from_arrays(arrays(label=label))
  assert (splits.task, splits.num_outputs, splits.class_names) == (
    "segmentation",
    3,
    ("0", "5", "10"),
  )
  (said,) = [n for n in splits.notes if "segmentation" in n]
  assert "3 classes (0, 5, 10); -1 is void" in said
  table = data.table_from_arrays(arrays(label=label))
  np.testing.assert_array_equal(table.label, np.where(label < 0, -1, label // 5))
  assert table.inputs["a"].shape == (ROWS, *SIZE, 1)
  assert not [n for n in data.from_arrays(arrays(), task="segmentation").notes if "read as" in n]


def test_absent_maps_may_hold_nan_and_unknown_labels_become_void():
  there = np.arange(ROWS) % 3 > 0
  a = arrays()["a"]
  a[~there] = np.nan
  table = data.table_from_arrays(
    arrays(a=a, mask_a=there, mask_label=np.arange(ROWS) != 1, split=np.repeat([0, 1, 2], 4))
  )
  assert (table.inputs["a"][~there] == 0).all()
  assert (table.label[1] == -1).all()
  np.testing.assert_array_equal(table.splits().train.mask["a"], there[:4])


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"a": np.zeros((ROWS, 4))}, "modality 'a' is [12, 4]; leave it out (--ignore a)"),
    ({"a": np.zeros((ROWS, 5, 8))}, "modality 'a' is 5 x 8, the label is 5 x 7"),
    ({"a": np.full((ROWS, *SIZE), np.nan)}, "NaN"),
    ({"label": np.zeros((ROWS, *SIZE), int)}, "one class only ('0')"),
    ({"label": np.full((ROWS, *SIZE), -1)}, "void places only"),
    ({"label": np.arange(-2, ROWS * 35 - 2).reshape(ROWS, *SIZE)}, "got -2"),
  ],
)
def test_what_is_no_segmentation_is_said_in_a_sentence(changes, said):
  with pytest.raises(data.DataError) as error:
    data.from_arrays(arrays(**changes))
  assert said in str(error.value)


def test_a_map_with_a_hole_is_refused_and_not_read_as_an_early_end():
  a = arrays()["b"]
  a[3, -1] = np.nan
  with pytest.raises(data.DataError, match="reads whole maps, and some of 'b' are NaN"):
    data.from_arrays(arrays(b=a))


def test_float_labels_are_refused_unless_whole():
  label = arrays()["label"].astype(float)
  assert data.from_arrays(arrays(label=label), task="segmentation").num_outputs == 3
  label[4, 0, 0] = 0.5
  with pytest.raises(data.DataError, match="row 4 has others"):
    data.from_arrays(arrays(label=label), task="segmentation")
