import numpy as np
import pytest

from mmfuse.data import DataError
from mmfuse.data._labels import read_label


def read(x, task=None, keep=None):
  return read_label("label", x, task, keep)[:3]


def notes(x, task=None):
  return read_label("label", x, task)[3]


@pytest.mark.parametrize(
  ("x", "codes", "names"),
  [
    ([3, 1, 7, 3], [1, 0, 2, 1], ("1", "3", "7")),
    (["run", "sit", "run"], [0, 1, 0], ("run", "sit")),
    (np.array([b"y", b"x"]), [1, 0], ("x", "y")),
    ([[5], [4]], [1, 0], ("4", "5")),
    ([True, False], [1, 0], ("False", "True")),
  ],
)
def test_classes(x, codes, names):
  label, task, found = read(x)
  assert (task, found, label.dtype) == ("classification", names, np.int32)
  np.testing.assert_array_equal(label, codes)


def test_classes_by_task():
  label, _, names = read([2.0, 1.0, 2.0], "classification")
  assert label.tolist() == [1, 0, 1] and names == ("1", "2")
  assert read([3, -1, 7], "classification")[2] == ("-1", "3", "7")
  assert read(["", "nan"], "classification")[2] == ("", "nan")
  label, _, names = read([[0, 0, 1], [1, 0, 0]], "classification")  # one-hot
  assert label.tolist() == [2, 0] and names == ("0", "1", "2")


def test_multilabel():
  label, task, names = read([[0, 1], [1, 1]])
  assert (task, names, label.dtype) == ("multilabel", ("0", "1"), np.int32)
  assert read([[0.0, 1.0], [1.0, 1.0]], "multilabel")[0].dtype == np.int32
  assert read([[0], [1]], "multilabel")[0].shape == (2, 1)


def test_regression():
  label, task, names = read([100.5, 2])
  assert (task, names, label.dtype) == ("regression", (), np.float64)
  np.testing.assert_array_equal(label, [100.5, 2])  # in its own unit, all digits
  assert read(np.ones((3, 2)))[0].shape == (3, 2)
  assert read([1, 2], "regression")[0].dtype == np.float64


def test_rows_left_out_are_not_read():
  label, _, _ = read([1.5, np.nan, 2.5], keep=np.array([True, False, True]))
  assert label.tolist() == [1.5, 2.5]
  assert read(["a", "zzz", "b"], keep=np.array([True, False, True]))[2] == ("a", "b")


@pytest.mark.parametrize(
  ("x", "task", "message"),
  [
    (np.zeros(0, int), None, "label 'label' is empty"),
    ([1, 1, 1], None, r"one class only \('1'\), expected at least two"),
    (
      [1.0, np.nan],
      None,
      r"NaN or infinite at row 1 \(1 rows in all\).*pass mask_label with False",
    ),
    ([0, 1, -1], None, r"negative class -1 at row 2 \(1 rows.*mask_label.*--task classification"),
    ([[0], [-1]], None, "negative class -1 at row 1"),
    (["a", "nan", ""], None, r"the class name 'nan' at row 1 \(2 rows in all\).*mask_label"),
    (["a", "", "b"], None, "the class name '' at row 1"),
    ([1.0, np.inf], "classification", "NaN or infinite at row 1"),
    ([1.0, 1.5], "classification", "whole numbers, got 1.5"),
    ([[0, 2], [1, 0]], None, r"must hold 0 and 1 .*int64 \[2, 2\] with values from 0 to 2"),
    ([[0, 2], [1, 0]], "classification", r"\[B\] or one-hot \[B, C\], got int64 \[2, 2\]"),
    ([0, 1], "multilabel", "must hold 0 and 1"),
    ([1.0, 1e300], None, "too large to be standardised, got values from 1.0 to 1e"),
    ([1.0, 1e300], "classification", "whole numbers, got 1e"),
    (["a", "b"], "regression", "must be numbers"),
    (np.ones((2, 2, 2)), None, "regression must be numbers"),
    (np.array([None, 1]), None, "holds Python objects"),
    (np.ones(2, complex), None, "dtype complex128"),
    ([0, 1], "clasification", "unknown task 'clasification'; closest: classification"),
  ],
)
def test_bad_labels(x, task, message):
  with pytest.raises(DataError, match=message):
    read(x, task)


def test_the_row_of_a_bad_label_is_that_of_the_file():
  with pytest.raises(DataError, match="at row 2"):
    read([1.0, np.nan, np.nan], keep=np.array([True, False, True]))


def test_unknown_labels_are_never_read():
  known = np.array([True, False, True, False, True])
  label, task, names, _ = read_label("label", [4, -1, 2, 99, 4], None, known=known)
  assert (task, names) == ("classification", ("2", "4")) and label.tolist() == [1, 0, 0, 0, 1]
  label, task, *_ = read_label("label", [4.0, np.nan, 2.5, np.inf, 4], None, known=known)
  assert task == "regression" and label.tolist() == [4, 0, 2.5, 0, 4]
  label, task, *_ = read_label(
    "label", [[1, 1], [-1, -1], [0, 1], [7, 7], [0, 0]], None, known=known
  )
  assert task == "multilabel" and label.tolist() == [[1, 1], [0, 0], [0, 1], [0, 0], [0, 0]]
  assert read_label("label", ["b", "", "a", "nan", "b"], None, known=known)[2] == ("a", "b")


def test_unknown_labels_beside_dropped_rows():
  keep = np.array([False, True, True, True])
  label, _, names, _ = read_label("label", [9, 5, -1, 4], None, keep, np.array([1, 1, 0, 1], bool))
  assert label.tolist() == [1, 0, 0] and names == ("4", "5")
  with pytest.raises(DataError, match="no row has a label: mask_label is False for all 3 rows"):
    read_label("label", [9, 5, 6, 4], None, keep, np.array([True, False, False, False]))
  with pytest.raises(DataError, match="one class only"):
    read_label("label", [0, 1, 1], None, known=np.array([False, True, True]))


WHOLE = np.arange(30) % 5 * 1.0


@pytest.mark.parametrize(
  ("x", "said"),
  [
    (
      WHOLE,
      "label holds whole floats 0..4 (5 values): read as regression; --task classification "
      "reads them as classes",
    ),
    (
      WHOLE[:, None],
      "label holds whole floats 0..4 (5 values): read as regression; --task "
      "classification reads them as classes",
    ),
    (WHOLE + 0.5, None),
    (np.arange(30.0), None),  # as many values as rows
    (
      np.eye(3, dtype=int)[np.arange(30) % 3],
      "every row of label has exactly one 1: read as multi-label; --task classification reads classes",
    ),
    (
      np.eye(3)[np.arange(30) % 3],
      "every row of label has exactly one 1: read as regression of 3 "
      "targets; --task classification reads classes",
    ),
    (np.arange(60).reshape(30, 2) % 4 // 2, None),
    (
      np.array([[0.0, 0], [1, 1], [0, 1]]),
      "label holds 0 and 1 only: read as regression; --task multilabel reads labels",
    ),
    (
      np.arange(90),
      "label holds 90 different integers in 90 rows: read as classes; --task "
      "regression reads them as numbers",
    ),
    (np.arange(90) % 20, None),
    (np.array(["a", "b"]), None),
  ],
)
def test_a_guess_that_could_be_another_is_said(x, said):
  assert notes(x) == ([] if said is None else [said])


def test_what_the_user_said_is_no_guess():
  assert not notes(WHOLE, "regression") and not notes(WHOLE, "classification")
  assert not notes(np.eye(3, dtype=int), "multilabel") and not notes(
    np.arange(90), "classification"
  )
