"""From named arrays to a table: what `from_arrays` and the npz reader share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.data import _fingerprint, _plain, _sequences
from mmfuse.data._choice import kept_rows, used_arrays
from mmfuse.data._counting import read_weight
from mmfuse.data._error import DataError, closest
from mmfuse.data._extra import read_extras
from mmfuse.data._identifiers import check_no_identifier
from mmfuse.data._inputs import EXTRA, MASK, TRUTH, modality_names, read_mask, read_noted
from mmfuse.data._labels import check_task, read_label
from mmfuse.data._maps import as_maps, check_whole, looks_dense
from mmfuse.data._plain import as_array
from mmfuse.data._split import Splits
from mmfuse.data._split_column import read_split
from mmfuse.data._table import FRACTIONS, Table
from mmfuse.names import GENERATION, RETRIEVAL, SEGMENTATION


def _column(name: str, value: Any, rows: int) -> np.ndarray:
  x = as_array(name, value)
  if x.shape != (rows,):
    raise DataError(f"{name!r} must be [{rows}], one value per row of 'label', got {list(x.shape)}")
  return np.char.decode(x, "utf-8", "backslashreplace") if x.dtype.kind == "S" else x


def _group(value: Any, rows: int) -> np.ndarray:
  x = _column("group", value, rows)
  if x.dtype.kind not in "biufU" or (x.dtype.kind == "f" and not np.isfinite(x).all()):
    raise DataError(f"group must be integers or strings without NaN, got {x.dtype}")
  return x


def _label(name: str, value: Any, mask: Any) -> tuple[np.ndarray, np.ndarray | None]:
  """(the label as given; bool `[B]`, False where it is unknown, or None)."""
  x, gone = _plain.unmask(name, value)
  if not len(x):
    raise DataError(f"label {name!r} is empty: shape {list(x.shape)}")
  known = None if mask is None else read_mask(name, mask, len(x), repr(name), "known")
  if gone is not None:
    hidden = gone.reshape(len(x), -1)
    partly = hidden.any(1) & ~hidden.all(1)
    if partly.any():
      raise DataError(
        f"label {name!r} is masked in part at row {int(np.argmax(partly))}, expected whole rows"
      )
    seen = np.asarray(~hidden.all(1))
    known = seen if known is None else known & seen
  return x, None if known is None or known.all() else known


def table_from_arrays(
  arrays: Mapping[str, Any],
  *,
  label: str = "label",
  task: str | None = None,
  encoders: Mapping[str, Any] | None = None,
  modalities: Sequence[str] | None = None,
  ignore: Sequence[str] | None = None,
  drop_empty: bool = False,
  name: str = "arrays",
  recipe: str = "",
  notes: Sequence[str] = (),
) -> Table:
  """Checks named arrays and makes them a table.

  Reserved names: `label`; `split` (`train`/`validation`/`test` or 0/1/2, `[B]`; `val`, `valid`,
  `dev`, `development` are validation); `group` (`[B]`, rows that must stay together); `weight`
  (`[B]`, not negative: how much a row counts in training); `mask_label` (bool `[B]`, False = the
  label is unknown); `mask_<modality>` (bool `[B]`, True = present); `length_<modality>` (int `[B]`,
  the steps of a row of `[B, T, ...]` that count); `extra_<name>` (`[B, ...]`, travels in
  `Batch.extra`); `truth_<name>` (`[B, ...]`, for scores, never in a batch). Every other array is a
  modality with as many rows as `label`, which may be left out where `task` is "generation". The
  column `split` may name further parts: query, database, ood, shifted.

  `[B]` counts as `[B, 1]`; numbers and booleans become floats (uint8 of rank 3 or more is an image,
  /255); a modality `[B, T, ...]` with lengths, or whose rows end in NaN, becomes `core.Sequence`; what a
  numpy masked array hides is absent (`read_inputs`). Integer or string labels are classes, sorted and
  numbered 0..C-1; `[B, L]` 0/1 is multi-label; integers `[B, H, W]` are a segmentation, -1 void, whose
  modalities are maps of that height and width; float is regression, in the label's own unit.

  Args:
    arrays: {name: array}.
    label: name of the label array; where it is another, `mask_<that name>` is its mask.
    task: one of `names.TASKS`; None reads it off the label's dtype.
    encoders: {modality: spec or module}, the user's choices.
    modalities: the modalities to use; None: all. A column that looks like an identifier is refused
      unless it is named here or has an encoder.
    ignore: arrays that are no modality to use, instead of `modalities`.
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
  unlabelled = task == GENERATION and label not in arrays
  if label not in arrays and not unlabelled:
    raise DataError(
      f"no array is called {label!r}{closest(label, arrays)}; task={GENERATION!r} "
      f"(--task {GENERATION}) is for methods that need none"
    )
  arrays, chosen = used_arrays(arrays, label, modalities, ignore)
  names = modality_names(arrays, label)
  if not names:
    raise DataError(
      f"no modality: every array but {label!r}, split, group, weight, mask_<name>, length_<modality>, "
      f"extra_<name> and truth_<name> is one, and the arrays are {', '.join(sorted(arrays))}"
    )
  known_rows = arrays.pop(MASK + label, None)
  target: Any = None
  labelled: np.ndarray | None = None
  if unlabelled:
    rows = len(as_array(names[0], arrays[names[0]]))
  else:
    target, labelled = _label(label, arrays[label], known_rows)
    rows = len(target)
  dense = task == SEGMENTATION or (task is None and not unlabelled and looks_dense(target))
  if dense:
    arrays = as_maps(arrays, names, target)
  inputs, mask, read = read_noted(arrays, names, rows=rows, encoders=encoders)
  if dense:
    check_whole(inputs)
  for m in names:
    if modalities is None and m not in (encoders or {}):
      check_no_identifier(m, arrays[m], mask[m])
  keep, dropped = kept_rows(mask, drop_empty)
  kind: str = GENERATION
  class_names: tuple[str, ...] = ()
  guessed: list[str] = []
  if target is not None:
    target, kind, class_names, guessed = read_label(label, target, task, keep, labelled)
    kind = str(task) if task in (GENERATION, RETRIEVAL) else kind
  of = repr(names[0] if unlabelled else label)
  extra, truth = (
    {n: x[keep] for n, x in arrays_.items()} for arrays_ in read_extras(arrays, rows, of)
  )
  split: np.ndarray | None = None
  named: list[str] = []
  if "split" in arrays:
    split, named = read_split(_column("split", arrays["split"], rows))
    split = split[keep]
  group = _group(arrays["group"], rows)[keep] if "group" in arrays else None
  weight = None
  if "weight" in arrays and label != "weight":
    weight = read_weight(arrays["weight"], rows)[keep]
  labelled = None if labelled is None else labelled[keep]
  beside = [*(EXTRA + n for n in extra), *(TRUTH + n for n in truth)]
  noted = (f"no modality, kept beside: {', '.join(beside)}",) if beside else ()
  if dropped:
    inputs = {m: _sequences.take(x, keep) for m, x in inputs.items()}
    mask = {m: x[keep] for m, x in mask.items()}
  table = Table(
    name=name,
    inputs=inputs,
    label=target,
    mask=mask,
    group=group,
    split=split,
    task=kind,
    class_names=class_names,
    encoders=dict(encoders or {}),
    extra=extra,
    truth=truth,
    labelled=labelled,
    weight=weight,
    notes=(*notes, *chosen, *dropped, *read, *guessed, *named, *noted),
    fingerprint="",
  )
  return _fingerprint.stamped(table, recipe)


def from_arrays(
  arrays: Mapping[str, Any],
  *,
  label: str = "label",
  split: Sequence[float] | None = None,
  seed: int = 0,
  task: str | None = None,
  encoders: Mapping[str, Any] | None = None,
  modalities: Sequence[str] | None = None,
  ignore: Sequence[str] | None = None,
  class_weights: str | None = None,
  weighted_scores: bool = False,
  drop_empty: bool = False,
  allow_straddling: bool = False,
  scale: Mapping[str, str] | None = None,
  name: str = "arrays",
) -> Splits:
  """Your own arrays, checked, split and standardised from the training rows.

  Args:
    arrays: {name: array}; reserved names are `label`, `split`, `group`, `weight`, `mask_label`,
      `mask_<modality>` and `length_<modality>` (`table_from_arrays` says what they mean).
    label: name of the label array.
    split: train, validation and test share; None takes the array `split`, or .6, .2, .2.
    seed: of the split.
    task: see `table_from_arrays`.
    encoders: see `table_from_arrays`.
    modalities: see `table_from_arrays`.
    ignore: see `table_from_arrays`.
    class_weights: see `Table.splits`.
    weighted_scores: see `Table.splits`.
    drop_empty: see `table_from_arrays`.
    allow_straddling: see `Table.splits`.
    scale: see `Table.splits`.
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
    raise DataError(f"both an array 'split' and split={split!r} are given, expected one of them")
  table = table_from_arrays(
    arrays,
    label=label,
    task=task,
    encoders=encoders,
    modalities=modalities,
    ignore=ignore,
    drop_empty=drop_empty,
    name=name,
  )
  return table.splits(
    seed,
    fractions=FRACTIONS if split is None else split,
    class_weights=class_weights,
    weighted_scores=weighted_scores,
    allow_straddling=allow_straddling,
    scale=scale,
  )
