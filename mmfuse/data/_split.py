"""Split and Splits: named parts of a table, standardised; what `train.fit` takes."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfuse.data import _sequences
from mmfuse.data._error import DataError, closest
from mmfuse.data._scaler import Scaler
from mmfuse.data._splitting import OPEN
from mmfuse.data._target import Target

if TYPE_CHECKING:  # the command line reads data before JAX is imported
  from mmfuse.core import Batch


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One part, as numpy arrays of N rows. A `core.Source`: `len`, `label`, `mask`, `index`, `batches`."""

  # {modality: float32 [N, ...], int32 [N, L] for an embedding, or core.Sequence of both}
  inputs: Mapping[str, Any]
  # int32 [N] classes; int32 [N, L] 0/1; int32 [N, H, W], -1 = void; float32 [N] or [N, R]; None
  label: Any
  mask: Mapping[str, np.ndarray]  # {modality: bool [N]}, True = present
  index: np.ndarray  # int32 [N], row in the table
  group: np.ndarray | None = None  # [N] int or str, None without groups
  weight: np.ndarray | None = None  # float32 [N], weight of the example; None = 1
  labelled: np.ndarray | None = None  # bool [N], False = the label is unknown (and 0); None = all
  extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # {name: [N, ...]}
  # {name: [N, ...]}: what scores read and no step ever sees
  truth: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(next(iter(self.mask.values())))

  def replace(self, **changes: Any) -> "Split":
    """A copy with fields changed, as `dataclasses.replace`."""
    return dataclasses.replace(self, **changes)

  def rows(self, chosen: np.ndarray) -> "Split":
    """The rows `chosen` (int or bool `[n]`) of every array."""
    cut = lambda x: None if x is None else x[chosen]
    each = lambda arrays: {n: _sequences.take(x, chosen) for n, x in arrays.items()}
    return Split(
      each(self.inputs),
      cut(self.label),
      each(self.mask),
      np.asarray(self.index)[chosen],
      cut(self.group),
      cut(self.weight),
      cut(self.labelled),
      each(self.extra),
      each(self.truth),
    )

  def batch(self) -> "Batch":
    """All rows as one `core.Batch` of host arrays; `truth` stays behind."""
    from mmfuse.core import Batch

    n: Any = len(self)
    weight: Any = np.ones(n, np.float32) if self.weight is None else np.float32(self.weight)
    labelled: Any = np.ones(n, bool) if self.labelled is None else np.asarray(self.labelled)
    index: Any = np.arange(n, dtype=np.int32)
    mask: Any = dict(self.mask)
    return Batch(dict(self.inputs), self.label, mask, weight, index, dict(self.extra), labelled)

  def batches(self, size: int, rows: np.ndarray | None = None) -> "Iterator[Batch]":
    """Rows in the order given (default: all) as batches of one shape; the last is filled up.

    Args:
      size: rows of a batch, at most as many as there are.
      rows: int `[n]`.

    Yields:
      `core.Batch` of host arrays whose `index` is the row in this split. Padding has weight 0 and no
      modality.
    """
    chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
    size, whole = min(size, len(chosen)), self.batch()
    for start in range(0, len(chosen), max(size, 1)):
      part = chosen[start : start + size]
      index, real = np.resize(part, size), np.arange(size) < len(part)
      batch = _taken(whole, index)
      mask: Any = {m: v & real for m, v in batch.mask.items()}
      yield batch._replace(weight=batch.weight * real, mask=mask)


def _taken(batch: "Batch", index: np.ndarray) -> "Batch":
  """The rows `index` of a batch of host arrays."""
  take: Any = lambda x: None if x is None else np.asarray(x)[index]
  each = lambda arrays: {n: _sequences.take(x, index) for n, x in arrays.items()}
  return type(batch)(
    each(batch.inputs),
    take(batch.label),
    each(batch.mask),
    take(batch.weight),
    take(batch.index),
    each(batch.extra),
    take(batch.labelled),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
  """Standardised parts of one table by name; what `train.fit` takes.

  `fit` and a search read `train` and `validation`; all others are sealed until the report.
  """

  name: str  # of the table
  parts: Mapping[str, Split]  # "train", "validation", "test"; "query", "database", "ood", "shifted"
  task: str  # one of names.TASKS
  num_outputs: int  # classes, labels or regression targets; 0 without labels
  class_names: tuple[str, ...]  # [num_outputs], empty for regression
  encoders: dict[str, Any]  # {modality: spec or module}, the user's choices only
  scaler: Scaler  # fitted on the present training rows
  fingerprint: str  # of the table: equal for all seeds and folds
  notes: tuple[str, ...] = ()  # sentences to print
  target: Target | None = None  # of a regression: its labels here are standardised by it

  @property
  def train(self) -> Split:
    """The rows that are learnt from."""
    return self.part("train")

  @property
  def validation(self) -> Any:
    """The rows that are selected by; None where there are none."""
    return self.parts.get("validation")

  @property
  def test(self) -> Any:
    """The rows of the report; None where there are none, or for whoever may not see them."""
    return self.parts.get("test")

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted names."""
    return tuple(sorted(self.train.inputs))

  @property
  def num_classes(self) -> int:
    """Width of a head: classes, labels or regression targets."""
    return self.num_outputs

  def part(self, name: str) -> Split:
    """The part `name`. Raises DataError where it is not there, or sealed."""
    if name not in self.parts:
      raise DataError(f"there is no part {name!r}{closest(name, self.parts)}")
    return self.parts[name]

  def with_parts(self, **parts: Split | None) -> "Splits":
    """A copy with parts replaced or added; None takes one out."""
    merged = {**self.parts, **parts}
    return dataclasses.replace(self, parts={n: p for n, p in merged.items() if p is not None})

  def sealed(self) -> "Splits":
    """The same splits with every part but `train` and `validation`, and all truth, out of reach."""
    parts = {n: p.replace(truth={}) for n, p in self.parts.items() if n in OPEN}
    return dataclasses.replace(self, parts=parts)
