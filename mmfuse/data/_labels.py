"""The door for labels: which task they make, and in which form a loss reads them."""

from typing import Any

import numpy as np

from mmfuse.data._error import DataError, closest
from mmfuse.data._inputs import MASK
from mmfuse.data._maps import dense_notes, looks_dense, read_classes
from mmfuse.data._plain import as_array
from mmfuse.names import (
  CLASSIFICATION,
  GENERATION,
  MULTILABEL,
  REGRESSION,
  RETRIEVAL,
  SEGMENTATION,
  TASKS,
  VOID,
)

_FEW = 50  # different whole floats that look like classes
_NAMELESS = ("", "nan", "<na>")  # what a missing string becomes


def _guess(x: np.ndarray) -> str:
  if x.dtype.kind == "f":
    return REGRESSION
  if looks_dense(x):
    return SEGMENTATION
  return MULTILABEL if x.ndim == 2 and x.shape[1] > 1 else CLASSIFICATION


def _binary(x: np.ndarray) -> bool:
  return x.dtype.kind == "b" or not np.setdiff1d(x, (0, 1)).size


def _one_hot(x: np.ndarray) -> bool:
  return x.ndim == 2 and x.shape[1] > 1 and _binary(x) and bool((x.sum(1) == 1).all())


def _classes(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  if x.ndim == 2 and x.shape[1] == 1:
    x = x[:, 0]
  if x.dtype.kind in "biuf" and _one_hot(x):
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
  if out.size and np.abs(out).max() > 1e150:  # whose squares are no numbers
    raise DataError(
      f"labels are too large to be standardised, got values from {x.min()} to {x.max()}"
    )
  return out, ()


def _extent(x: np.ndarray) -> str:
  return f" with values from {x.min()} to {x.max()}" if x.dtype.kind in "biuf" else ""


def check_task(task: str | None) -> None:
  """Raises DataError unless `task` is None or one of `names.TASKS`."""
  if task is not None and task not in TASKS:
    raise DataError(f"unknown task {task!r}{closest(str(task), TASKS)}")


def _check_known(name: str, x: np.ndarray, rows: np.ndarray) -> None:
  """Raises DataError for what often stands where a label is unknown, in labels of no said task."""
  if x.dtype.kind == "U":
    wrong, what = np.isin(np.char.lower(x), _NAMELESS), "class name"
  elif x.dtype.kind == "i" and _guess(x) == CLASSIFICATION:
    wrong, what = x < 0, "negative class"
  else:
    return
  rows_wrong = np.asarray(wrong.reshape(len(x), -1).any(1))
  if rows_wrong.any():
    row = int(np.argmax(rows_wrong))
    raise DataError(
      f"label {name!r} has the {what} {x[row].ravel()[0].item()!r} at row {rows[row]} "
      f"({int(rows_wrong.sum())} rows in all); where the label is unknown, pass {MASK + name} with "
      "False, and if it is a class, say so with task='classification' (--task classification)"
    )


def guess_notes(name: str, label: np.ndarray, task: str) -> list[str]:
  """A note where the kind of `label` (known rows, as given) was guessed and could be another."""
  x, one = label, "has exactly one 1"
  if task == CLASSIFICATION:
    values = len(np.unique(x)) if x.dtype.kind in "iu" else 0
    if values > max(20, len(x) // 3):
      return [
        f"{name} holds {values} different integers in {len(x)} rows: read as classes; "
        "--task regression reads them as numbers"
      ]
    return []
  if _one_hot(x):
    read = "multi-label" if task == MULTILABEL else f"regression of {x.shape[1]} targets"
    return [f"every row of {name} {one}: read as {read}; --task classification reads classes"]
  if task == REGRESSION and x.ndim == 2 and x.shape[1] > 1 and _binary(x):
    return [f"{name} holds 0 and 1 only: read as regression; --task multilabel reads labels"]
  if task == REGRESSION and (x == np.floor(x)).all() and (x.ndim == 1 or x.shape[1] == 1):
    values = len(np.unique(x))
    if values <= max(2, min(_FEW, len(x) // 2)):
      return [
        f"{name} holds whole floats {x.min():.0f}..{x.max():.0f} ({values} values): read as "
        "regression; --task classification reads them as classes"
      ]
  return []


def read_label(
  name: str,
  value: Any,
  task: str | None,
  keep: np.ndarray | None = None,
  known: np.ndarray | None = None,
) -> tuple[np.ndarray, str, tuple[str, ...], list[str]]:
  """Labels, their task, the names of the classes, and notes on what was guessed.

  Integers and strings `[B]` are classes: sorted, numbered 0..C-1, names kept. Whole numbers 0/1
  `[B, L]` are multi-label, `[B, H, W]` are the classes of places (-1: void), floats are regression
  targets, and `task` decides otherwise. Regression targets are left in their unit. A row whose label is
  unknown holds 0, a map of it VOID.

  Args:
    name: of the array, for messages.
    value: the array, `[B]`, `[B, L]` or `[B, H, W]`.
    task: one of `names.TASKS`, or None to read it off the dtype.
    keep: bool `[B]`, rows that are used; others are never read.
    known: bool `[B]`, rows whose label is known; what stands in others is never read.

  Returns:
    (int32 `[B]`, `[B, L]`, `[B, H, W]`, float32 `[B]` or `[B, R]`; task; class names, `()` for regression;
    notes).

  Raises:
    DataError: no rows, NaN, one class only, a negative class or one without a name where `task` is
      None, or values that do not make the task.
  """
  check_task(task)
  x = as_array(name, value)
  if x.size == 0:
    raise DataError(f"label {name!r} is empty: shape {list(x.shape)}")
  if x.dtype.kind == "S":
    x = np.char.decode(x, "utf-8", "backslashreplace")
  if x.dtype.kind not in "biufU":
    raise DataError(f"label {name!r} has dtype {x.dtype}, expected integers, strings or floats")
  used = np.ones(len(x), bool) if keep is None else keep
  read_here = used if known is None else used & known
  rows = np.flatnonzero(read_here)
  if not len(rows):
    raise DataError(f"no row has a label: {MASK + name} is False for all {int(used.sum())} rows")
  x = x[rows]
  if x.dtype.kind == "f":
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
      raise DataError(
        f"label {name!r} is NaN or infinite at row {rows[np.argmin(finite)]} "
        f"({int((~finite).sum())} rows in all); where it is unknown, pass {MASK + name} with False"
      )
  if task is None:
    _check_known(name, x, rows)
  kind = task if task not in (None, GENERATION, RETRIEVAL) else _guess(x)
  if task == RETRIEVAL and kind in (REGRESSION, SEGMENTATION):
    raise DataError(
      f"retrieval asks whether two rows have a class or a label in common, and {name!r} holds "
      f"{x.dtype}; pass integers or strings [B], or 0 and 1 [B, L] as integers"
    )
  read = {
    CLASSIFICATION: _classes,
    MULTILABEL: _multilabel,
    REGRESSION: _regression,
    SEGMENTATION: read_classes,
  }[kind]
  found, names = read(x)
  nothing = VOID if kind == SEGMENTATION else 0
  label = np.full((int(used.sum()), *found.shape[1:]), nothing, found.dtype)
  label[read_here[used]] = found
  if kind == SEGMENTATION:
    return label, kind, names, dense_notes(name, names, task is None)
  return label, kind, names, guess_notes(name, x, kind) if task is None else []
