import numpy as np
import pytest

from mmfuse.data import DataError
from mmfuse.data._labels import read_label


def read(x, task=None, keep=None):
  return read_label("label", x, task, keep)


@pytest.mark.parametrize(
  ("x", "codes", "names"),
  [
    ([3, -1, 7, 3], [1, 0, 2, 1], ("-1", "3", "7")),
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
  label, _, names = read([[0, 0, 1], [1, 0, 0]], "classification")  # one-hot
  assert label.tolist() == [2, 0] and names == ("0", "1", "2")


def test_multilabel():
  label, task, names = read([[0, 1], [1, 1]])
  assert (task, names, label.dtype) == ("multilabel", ("0", "1"), np.int32)
  assert read([[0.0, 1.0], [1.0, 1.0]], "multilabel")[0].dtype == np.int32
  assert read([[0], [1]], "multilabel")[0].shape == (2, 1)


def test_regression():
  label, task, names = read([100.5, 2])
  assert (task, names, label.dtype) == ("regression", (), np.float32)
  np.testing.assert_array_equal(label, np.float32([100.5, 2]))  # in its own unit
  assert read(np.ones((3, 2)))[0].shape == (3, 2)
  assert read([1, 2], "regression")[0].dtype == np.float32


def test_rows_left_out_are_not_read():
  label, _, _ = read([1.5, np.nan, 2.5], keep=np.array([True, False, True]))
  assert label.tolist() == [1.5, 2.5]
  assert read(["a", "zzz", "b"], keep=np.array([True, False, True]))[2] == ("a", "b")


@pytest.mark.parametrize(
  ("x", "task", "message"),
  [
    (np.zeros(0, int), None, "label 'label' is empty"),
    ([1, 1, 1], None, r"one class only \('1'\), expected at least two"),
    ([1.0, np.nan], None, "NaN or infinite at row 1"),
    ([1.0, np.inf], "classification", "NaN or infinite at row 1"),
    ([1.0, 1.5], "classification", "whole numbers, got 1.5"),
    ([[0, 2], [1, 0]], None, r"must hold 0 and 1 .*int64 \[2, 2\] with values from 0 to 2"),
    ([[0, 2], [1, 0]], "classification", r"\[B\] or one-hot \[B, C\], got int64 \[2, 2\]"),
    ([0, 1], "multilabel", "must hold 0 and 1"),
    ([1.0, 1e300], None, "must fit in float32, got values from 1.0 to 1e"),
    ([1.0, 1e300], "classification", "whole numbers, got 1e"),
    (["a", "b"], "regression", "must be numbers"),
    (np.ones((2, 2, 2)), None, "regression must be numbers"),
    (np.array([None, 1]), None, "holds Python objects"),
    (np.ones(2, complex), None, "dtype complex128"),
    ([0, 1], "clasification", "unknown task 'clasification'; did you mean 'classification'"),
  ],
)
def test_bad_labels(x, task, message):
  with pytest.raises(DataError, match=message):
    read(x, task)


def test_the_row_of_a_bad_label_is_that_of_the_file():
  with pytest.raises(DataError, match="at row 2"):
    read([1.0, np.nan, np.nan], keep=np.array([True, False, True]))
