"""New rows in the form that a run's model reads: its modalities, shapes, standardisation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmfuse import core, data
from mmfuse.data._inputs import MASK, RESERVED
from mmfuse.data._maps import as_maps, check_whole
from mmfuse.data._sequences import LENGTH
from mmfuse.names import (
  CLASSIFICATION,
  GENERATION,
  MULTILABEL,
  REGRESSION,
  RETRIEVAL,
  SEGMENTATION,
)
from mmfuse.protocol._config import UsageError

IGNORED = {*RESERVED, MASK + "label"}  # what `compare` reads and a prediction does not need


class NewRows(NamedTuple):
  """The rows of a file, standardised as in the run."""

  split: data.Split
  absent: list[str]  # modalities of the run that the file does not have
  notes: list[str]


def read_rows(arrays: Mapping[str, Any], schema: dict, encoders: Mapping[str, Any]) -> NewRows:
  """The arrays of a file as the run's modalities.

  A modality that is not there is absent from every row. Label, split, group and weights are
  ignored; any other array is ignored with a note.

  Args:
    arrays: {name: array} of the file.
    schema: of the run, as its file says.
    encoders: {modality: the user's encoder}, which may say that integers are tokens.

  Raises:
    UsageError, data.DataError: no modality of the run, rows of another shape or without any
      modality.
  """
  wanted = sorted(schema["inputs"])
  here = [m for m in wanted if m in arrays]
  if not here:
    raise UsageError(
      f"the file has no modality of the run: it holds {', '.join(sorted(arrays))}, "
      f"the run was trained on {', '.join(wanted)}"
    )
  dense = schema["task"] == SEGMENTATION
  arrays = as_maps(arrays, here, None) if dense else arrays
  belongs = {n for m in here for n in (m, MASK + m, LENGTH + m)}
  inputs, mask = data.read_inputs(
    {n: x for n, x in arrays.items() if n in belongs},
    here,
    encoders={m: e for m, e in encoders.items() if m in here},
  )
  if dense:
    check_whole(inputs)
  rows = len(mask[here[0]])
  absent = [m for m in wanted if m not in here]
  for m in absent:
    _check_absent(m, arrays)
    inputs[m], mask[m] = _blank(schema["inputs"][m], rows), np.zeros(rows, bool)
  inputs = {m: _fitted(m, inputs[m], mask[m], schema["inputs"][m]) for m in wanted}
  _check_present(mask)
  notes = [*_unread(arrays, wanted), *_absent_note(absent), *_unknown_tokens(inputs, mask, schema)]
  inputs = data.Scaler.from_json(schema["scaler"]).apply(inputs, mask)
  index = np.arange(rows, dtype=np.int32)
  return NewRows(data.Split(inputs, _labels(schema, rows), mask, index, None), absent, notes)


def stand_in(schema: dict, encoders: dict) -> data.Splits:
  """`Splits` of two blank rows: enough to build the run's model, whatever the new rows are."""
  blank = {m: _blank(want, 2) for m, want in sorted(schema["inputs"].items())}
  there = {m: np.ones(2, bool) for m in blank}
  part = data.Split(blank, _labels(schema, 2), there, np.arange(2, dtype=np.int32), None)
  return data.Splits(
    "new",
    {"train": part, "validation": part},
    schema["task"],
    schema["num_outputs"],
    tuple(schema["class_names"]),
    encoders,
    data.Scaler.from_json(schema["scaler"]),
    schema["data"],
  )


def _labels(schema: dict, rows: int) -> np.ndarray | None:
  if schema["task"] == SEGMENTATION:
    return np.zeros((rows, *schema["places"]), np.int32)
  return {
    GENERATION: None,
    CLASSIFICATION: np.zeros(rows, np.int32),
    RETRIEVAL: np.zeros(rows, np.int32),  # which no row of that task reads
    REGRESSION: np.zeros((rows, schema["num_outputs"]), np.float32),
    MULTILABEL: np.zeros((rows, schema["num_outputs"]), np.int32),
  }[schema["task"]]


def _blank(want: dict, rows: int) -> Any:
  """Rows of the run's shape: zeros, or its largest token, which the vocabulary is read off."""
  shape = (rows, *want["shape"])
  if want["largest"] is not None:
    return np.full(shape, want["largest"], np.int32)
  values = np.zeros(shape, np.float32)
  if not want.get("length"):
    return values
  return core.Sequence(values, np.full(rows, shape[1], np.int32))


def _check_absent(m: str, arrays: Mapping[str, Any]) -> None:
  """A mask or lengths without their modality are a slip, not an absence."""
  for name in (MASK + m, LENGTH + m):
    if name in arrays and np.any(np.asarray(arrays[name])):
      raise UsageError(f"{name} says that {m!r} is there, and no array is called {m!r}")


def _fitted(m: str, x: Any, present: np.ndarray, want: dict) -> Any:
  """Rows as long as the run's; a run of sequences takes shorter ones."""
  values, length = x if isinstance(x, core.Sequence) else (x, None)
  shape = list(values.shape[1:])
  if want.get("length"):
    if length is None:
      length = np.where(present, shape[0], 0).astype(np.int32)
    longest, steps = want["shape"][0], shape[0]
    if steps > longest and shape[1:] == want["shape"][1:]:
      raise UsageError(
        f"modality {m!r} has rows of {steps} steps, the run was trained on at most {longest}"
      )
    values = np.pad(values, [(0, 0), (0, max(0, longest - steps)), *[(0, 0)] * (values.ndim - 2)])
    shape = list(values.shape[1:])
  elif length is not None:
    if (length[present] < values.shape[1]).any():
      raise UsageError(f"modality {m!r} has rows that end early, those of the run were all whole")
    length = None
  if shape != want["shape"]:
    raise UsageError(
      f"modality {m!r} has rows of shape {shape}, the run was trained on {want['shape']}"
    )
  return values if length is None else core.Sequence(values, length)


def _check_present(mask: Mapping[str, np.ndarray]) -> None:
  present: np.ndarray = np.any([mask[m] for m in sorted(mask)], axis=0)
  if not present.all():
    raise UsageError(
      f"{int((~present).sum())} of {len(present)} rows have no modality present, "
      f"the first is row {int(np.argmin(present))}"
    )


def _unread(arrays: Mapping[str, Any], wanted: list[str]) -> list[str]:
  """A note on arrays that are neither of the run nor of `compare`."""
  known = {*IGNORED, *(n for m in wanted for n in (m, MASK + m, LENGTH + m))}
  others = sorted(set(arrays) - known)
  return [f"not read, since the run does not know them: {', '.join(others)}"] if others else []


def _absent_note(absent: list[str]) -> list[str]:
  return [f"not in the file, so absent from every row: {', '.join(absent)}"] if absent else []


def _unknown_tokens(inputs: Mapping, mask: Mapping, schema: dict) -> list[str]:
  """A note per modality on tokens beyond the run's vocabulary: an embedding calls them unknown."""
  notes = []
  for m, want in sorted(schema["inputs"].items()):
    if want["largest"] is None:
      continue
    rows = (inputs[m] > want["largest"]).any(axis=1) & mask[m]
    if rows.any():
      notes.append(f"{m} has unknown tokens (above {want['largest']}) in {int(rows.sum())} rows")
  return notes
