"""Which rows count, and how much: example weights, class weights and unknown labels, by part."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfuse.data._error import DataError
from mmfuse.data._plain import as_array
from mmfuse.names import CLASSIFICATION

if TYPE_CHECKING:
  from mmfuse.data._table import Table

CLASS_WEIGHTS = ("balanced",)


def read_weight(value: Any, rows: int) -> np.ndarray:
  """The array `weight`, float64 `[rows]`: finite, not negative, not all 0."""
  x = as_array("weight", value)
  expected = (
    f"'weight' is a reserved name, the weight of each row: [{rows}] finite numbers of 0 or more, "
    "not all 0"
  )
  if x.shape != (rows,) or x.dtype.kind not in "biuf":
    raise DataError(f"{expected}; got {x.dtype} {list(x.shape)} (rename it if it is a modality)")
  x = x.astype(np.float64)
  wrong = ~(np.isfinite(x) & (x >= 0))
  if wrong.any():
    row = int(np.argmax(wrong))
    raise DataError(f"{expected}; got {x[row]:g} at row {row}")
  if not x.any():
    raise DataError(f"{expected}; got 0 in every row")
  return x


def _mean_one(weight: np.ndarray, part: str) -> np.ndarray:
  if not weight.any():
    raise DataError(f"every row of the {part} split has weight 0")
  return (weight / weight.mean()).astype(np.float32)


def balanced(label: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """n / (C n_c) of each row's class c, over the rows that count (bool `[n]`); 1 for the others.

  C is the number of classes that these rows have. The sum over them is n.
  """
  number = np.bincount(label[counts])
  weight = counts.sum() / (np.count_nonzero(number) * np.maximum(number, 1))
  return np.where(counts, weight[np.where(counts, label, label[counts].min())], 1.0)


def weights(
  table: "Table",
  rows: Mapping[str, np.ndarray],
  class_weights: str | None,
  weighted_scores: bool,
) -> tuple[dict[str, np.ndarray | None], list[str]]:
  """({part: float32 `[n]` of mean 1, or None for 1 everywhere}, notes).

  Training rows have the table's weight times that of their class; the rows of other parts have the
  table's where `weighted_scores`.

  Raises:
    DataError: class weights of no classes, weighted scores without weights, a part of weight 0.
  """
  if class_weights not in (None, *CLASS_WEIGHTS):
    raise DataError(f"class_weights must be None or 'balanced', got {class_weights!r}")
  if class_weights and table.task != CLASSIFICATION:
    raise DataError(f"class weights are for classes, the labels make a {table.task}")
  if weighted_scores and table.weight is None:
    raise DataError("weighted_scores (--weighted-scores) needs an array 'weight', there is none")
  out: dict[str, np.ndarray | None] = dict.fromkeys(rows)
  notes = []
  train = rows["train"]
  if table.weight is not None:
    for part in rows if weighted_scores else ("train",):
      out[part] = _mean_one(table.weight[rows[part]], part)
    notes = _weight_notes(table.weight[train], weighted_scores)
  if class_weights:
    counts = np.ones(len(train), bool) if out["train"] is None else out["train"] > 0
    if table.labelled is not None:
      counts &= table.labelled[train]
    if not counts.any():
      raise DataError("class weights need a training row with a label and a weight, there is none")
    each = balanced(table.label[train], counts)
    own = 1.0 if out["train"] is None else out["train"]
    out["train"] = _mean_one(own * each, "train")
    notes.append(
      f"class weights: a training row counts n / (C n_c), from {each[counts].min():.3g} "
      f"to {each[counts].max():.3g}"
    )
  return out, notes


def _weight_notes(weight: np.ndarray, weighted_scores: bool) -> list[str]:
  scores = "validation and test scores too" if weighted_scores else "scores count every row alike"
  notes = [
    f"weight: training rows have weights from {weight.min():.4g} to {weight.max():.4g}, "
    f"divided by their mean; {scores}"
  ]
  zero = int((weight == 0).sum())
  if zero:
    notes.append(f"{zero} of {len(weight)} training rows have weight 0 and count as absent")
  return notes


def label_notes(labelled: np.ndarray | None, rows: Mapping[str, np.ndarray]) -> list[str]:
  """How many rows have no label, by part; DataError where a part has no row with one."""
  if labelled is None:
    return []
  unknown = {part: int((~labelled[index]).sum()) for part, index in rows.items()}
  for part, index in rows.items():
    if unknown[part] == len(index):
      raise DataError(f"the {part} split has no row with a label: all {len(index)} are unknown")
  total = sum(map(len, rows.values()))
  parts = ", ".join(f"{part} {unknown[part]} of {len(index)}" for part, index in rows.items())
  return [
    f"{sum(unknown.values())} of {total} rows have no label ({parts}): they train what reads "
    "none and count in no loss or score"
  ]
