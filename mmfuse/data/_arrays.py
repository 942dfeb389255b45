"""From named arrays to a table: what `from_arrays` and the npz reader share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.data import _fingerprint
from mmfuse.data._error import DataError, closest
from mmfuse.data._inputs import as_array, modality_names, read_inputs
from mmfuse.data._labels import check_task, read_label
from mmfuse.data._splitting import SPLITS
from mmfuse.data._table import FRACTIONS, Splits, Table


def _column(name: str, value: Any, rows: int) -> np.ndarray:
  x = as_array(name, value)
  if x.shape != (rows,):
    raise DataError(f"{name!r} must be [{rows}], one value per row of 'label', got {list(x.shape)}")
  return np.char.decode(x, "utf-8", "backslashreplace") if x.dtype.kind == "S" else x


def _split(value: Any, rows: int) -> np.ndarray:
  """str `[B]` of `SPLITS` from the names or from 0, 1, 2."""
  x = _column("split", value, rows)
  allowed = np.asarray(SPLITS if x.dtype.kind == "U" else (0, 1, 2))
  wrong = ~np.isin(x, allowed) if x.dtype.kind in "Uiu" else np.ones(rows, bool)
  if wrong.any():
    row = int(np.argmax(wrong))
    raise DataError(
      f"split must be train, validation or test, or 0, 1 or 2, got {x[row].item()!r} at row {row}"
    )
  return x if x.dtype.kind == "U" else np.asarray(SPLITS)[x]


def _group(value: Any, rows: int) -> np.ndarray:
  x = _column("group", value, rows)
  if x.dtype.kind not in "biufU" or (x.dtype.kind == "f" and not np.isfinite(x).all()):
    raise DataError(f"group must be integers or strings without NaN, got {x.dtype}")
  return x


def _kept(mask: Mapping[str, np.ndarray], drop_empty: bool) -> tuple[np.ndarray, tuple[str, ...]]:
  """Which rows have a modality at all, bool `[B]`, and the note about the others."""
  present = np.asarray(np.stack([mask[m] for m in sorted(mask)]).any(axis=0))
  empty = int((~present).sum())
  if empty == len(present):
    raise DataError(f"no row has a modality: the masks are False for all {empty} rows")
  if empty and not drop_empty:
    raise DataError(
      f"{empty} of {len(present)} rows have no modality present, the first is row "
      f"{int(np.argmin(present))}; drop_empty=True (--drop-empty) leaves them out"
    )
  if not empty:
    return present, ()
  return present, (f"{empty} {'row' if empty == 1 else 'rows'} without a modality dropped",)


def table_from_arrays(
  arrays: Mapping[str, Any],
  *,
  label: str = "label",
  task: str | None = None,
  encoders: Mapping[str, Any] | None = None,
  drop_empty: bool = False,
  name: str = "arrays",
  recipe: str = "",
  notes: Sequence[str] = (),
) -> Table:
  """Checks named arrays and makes them a table.

  Reserved names: `label`; `split` (`train`/`validation`/`test` or 0/1/2, `[B]`); `group` (`[B]`,
  rows that must stay together); `mask_<modality>` (bool `[B]`, True = present). Every other array
  is a modality with as many rows as `label`. `[B]` counts as `[B, 1]`; numbers and booleans become
  float32 (uint8 of rank 3 or more is an image, /255); integer or string labels are classes, sorted
  and numbered 0..C-1; `[B, L]` 0/1 is multi-label; float is regression, in the label's own unit.

  Args:
    arrays: {name: array}.
    label: name of the label array.
    task: "classification", "multilabel", "regression"; None reads it off the label's dtype.
    encoders: {modality: spec or module}, the user's choices.
    drop_empty: leave out rows without any modality instead of refusing them.
    name: of the data set.
    recipe: version of a built-in set, part of the fingerprint.
    notes: sentences that travel with the table.

  Raises:
    DataError: one sentence about the first thing that is wrong.
  """
  if not isinstance(arrays, Mapping):
    raise DataError(f"expected arrays by name, {{str: array}}, got {type(arrays).__name__}")
  for key in arrays:
    if not isinstance(key, str):
      raise DataError(f"expected arrays by name, {{str: array}}, got the key {key!r}")
  check_task(task)
  if label not in arrays:
    raise DataError(f"no array is called {label!r}{closest(label, arrays)}")
  names = modality_names(arrays, label)
  if not names:
    raise DataError(
      f"no modality: every array but {label!r}, split, group and mask_<modality> is one, "
      f"and the arrays are {', '.join(sorted(arrays))}"
    )
  target = as_array(label, arrays[label])
  rows = len(target)
  if not rows:
    raise DataError(f"label {label!r} is empty: shape {list(target.shape)}")
  inputs, mask = read_inputs(arrays, names, rows=rows, encoders=encoders)
  keep, dropped = _kept(mask, drop_empty)
  target, task, class_names = read_label(label, target, task, keep)
  split = _split(arrays["split"], rows)[keep] if "split" in arrays else None
  group = _group(arrays["group"], rows)[keep] if "group" in arrays else None
  if dropped:
    inputs = {m: x[keep] for m, x in inputs.items()}
    mask = {m: x[keep] for m, x in mask.items()}
  return Table(
    name=name, inputs=inputs, label=target, mask=mask, group=group, split=split, task=task,
    class_names=class_names, encoders=dict(encoders or {}), notes=(*notes, *dropped),
    fingerprint=_fingerprint.fingerprint(inputs, mask, target, group, split, class_names, recipe),
  )  # fmt: skip


def from_arrays(
  arrays: Mapping[str, Any],
  *,
  label: str = "label",
  split: Sequence[float] | None = None,
  seed: int = 0,
  task: str | None = None,
  encoders: Mapping[str, Any] | None = None,
  drop_empty: bool = False,
  name: str = "arrays",
) -> Splits:
  """Your own arrays, checked, split and standardised from the training rows.

  Args:
    arrays: {name: array}; `table_from_arrays` says which names are reserved.
    label: name of the label array.
    split: train, validation and test share; None takes the array `split`, or .6, .2, .2.
    seed: of the split.
    task: see `table_from_arrays`.
    encoders: see `table_from_arrays`.
    drop_empty: see `table_from_arrays`.
    name: of the data set.

  Raises:
    DataError: one sentence about the first thing that is wrong.

  Example:
    >>> import numpy as np
    >>> arrays = {"a": np.arange(20.0), "b": np.ones((20, 3)), "label": np.arange(20) % 2}
    >>> splits = from_arrays(arrays, split=(0.5, 0.2, 0.3))
    >>> splits.modalities, len(splits.train.label), splits.train.inputs["a"].shape
    (('a', 'b'), 10, (10, 1))
  """
  if split is not None and isinstance(arrays, Mapping) and "split" in arrays:
    raise DataError(
      f"both an array 'split' and split={split!r} are given, expected one of them"
    )
  table = table_from_arrays(
    arrays, label=label, task=task, encoders=encoders, drop_empty=drop_empty, name=name
  )
  return table.splits(seed, fractions=FRACTIONS if split is None else split)
