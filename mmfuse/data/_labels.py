"""The door for labels: which task they make, and in which form a loss reads them."""

from typing import Any

import numpy as np

from mmfuse.data._error import DataError, closest
from mmfuse.data._inputs import as_array
from mmfuse.data._table import TASKS


def _guess(x: np.ndarray) -> str:
  if x.dtype.kind == "f":
    return "regression"
  return "multilabel" if x.ndim == 2 and x.shape[1] > 1 else "classification"


def _binary(x: np.ndarray) -> bool:
  return x.dtype.kind == "b" or not np.setdiff1d(x, (0, 1)).size


def _classes(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  if x.ndim == 2 and x.shape[1] == 1:
    x = x[:, 0]
  if x.ndim == 2 and x.dtype.kind in "biuf" and _binary(x) and (x.sum(1) == 1).all():
    return x.argmax(1).astype(np.int32), tuple(map(str, range(x.shape[1])))  # one-hot
  if x.ndim != 1:
    raise DataError(f"class labels must be [B] or one-hot [B, C], got {x.dtype} {list(x.shape)}")
  if x.dtype.kind == "f":
    wrong = (x != np.floor(x)) | (np.abs(x) > 2**53)
    if wrong.any():
      row = int(np.argmax(wrong))
      raise DataError(f"class labels must be whole numbers, got {x[row]} in the float labels")
    x = x.astype(np.int64)
  values, codes = np.unique(x, return_inverse=True)
  names = tuple(str(v) for v in values)
  if len(names) < 2:
    raise DataError(f"label has one class only ({names[0]!r}), expected at least two")
  return codes.astype(np.int32), names


def _multilabel(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  if x.ndim != 2 or x.dtype.kind not in "biuf" or not _binary(x):
    raise DataError(
      f"a label of rank 2 that is not float must hold 0 and 1 (multi-label [B, L]), "
      f"got {x.dtype} {list(x.shape)}" + _extent(x)
    )
  return x.astype(np.int32), tuple(map(str, range(x.shape[1])))


def _regression(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  if x.dtype.kind not in "biuf" or x.ndim > 2:
    raise DataError(
      f"labels of a regression must be numbers [B] or [B, R], got {x.dtype} {list(x.shape)}"
    )
  out = x.astype(np.float64)  # what is learnt is standardised first, then float32
  return out, ()


def _extent(x: np.ndarray) -> str:
  return f" with values from {x.min()} to {x.max()}" if x.dtype.kind in "biuf" else ""


def check_task(task: str | None) -> None:
  """Raises DataError unless `task` is None or one of the three."""
  if task is not None and task not in TASKS:
    raise DataError(f"unknown task {task!r}{closest(str(task), TASKS)}")


def read_label(
  name: str, value: Any, task: str | None, keep: np.ndarray | None = None
) -> tuple[np.ndarray, str, tuple[str, ...]]:
  """Labels, their task and the names of the classes.

  Integers and strings `[B]` are classes: sorted, numbered 0..C-1, names kept. Whole numbers 0/1
  `[B, L]` are multi-label, floats are regression targets, and `task` decides otherwise. Regression
  targets are left in their unit.

  Args:
    name: of the array, for messages.
    value: the array, `[B]` or `[B, L]`.
    task: "classification", "multilabel", "regression", or None to read it off the dtype.
    keep: bool `[B]`, rows that are used; others are never read.

  Returns:
    (int32 `[B]` or `[B, L]`, or float32 `[B]` or `[B, R]`; task; class names, `()` for regression).

  Raises:
    DataError: no rows, NaN, one class only, or values that do not make the task.
  """
  check_task(task)
  x = as_array(name, value)
  if x.size == 0:
    raise DataError(f"label {name!r} is empty: shape {list(x.shape)}")
  if x.dtype.kind == "S":
    x = np.char.decode(x, "utf-8", "backslashreplace")
  if x.dtype.kind not in "biufU":
    raise DataError(f"label {name!r} has dtype {x.dtype}, expected integers, strings or floats")
  rows = np.arange(len(x)) if keep is None else np.flatnonzero(keep)
  x = x[rows]
  if x.dtype.kind == "f":
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
      raise DataError(f"label {name!r} is NaN or infinite at row {rows[np.argmin(finite)]}")
  task = task or _guess(x)
  read = {"classification": _classes, "multilabel": _multilabel, "regression": _regression}[task]
  label, names = read(x)
  return label, task, names
