"""Split, Splits and Table: a data set before and after it is split and standardised."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmfuse.data import _counting, _presence, _sequences, _split_column, _splitting
from mmfuse.data._error import DataError
from mmfuse.data._scaler import Scaler
from mmfuse.data._target import Target
from mmfuse.names import CLASSIFICATION, MULTILABEL, REGRESSION

FRACTIONS = (0.6, 0.2, 0.2)  # train, validation, test


class Split(NamedTuple):
  """One split, as numpy arrays of N rows."""

  # {modality: float32 [N, ...], int32 [N, L] for an embedding, or core.Sequence of both}
  inputs: dict[str, Any]
  label: np.ndarray  # int32 [N] classes; int32 [N, L] 0/1; float32 [N] or [N, R]
  mask: dict[str, np.ndarray]  # {modality: bool [N]}, True = present
  index: np.ndarray  # type: ignore[assignment]  # int32 [N], row in the table
  group: np.ndarray | None  # [N] int or str, None without groups
  weight: np.ndarray | None = None  # float32 [N], weight of the example; None = 1
  labelled: np.ndarray | None = None  # bool [N], False = the label is unknown (and 0); None = all


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
  """Standardised splits of one table; what `train.fit` takes."""

  name: str
  train: Split
  validation: Split
  test: Split | None  # None for whoever may not see it (`without_test`)
  task: str  # one of names.TASKS
  num_outputs: int  # classes, labels or regression targets
  class_names: tuple[str, ...]  # [num_outputs], empty for regression
  encoders: dict[str, Any]  # {modality: spec or module}, the user's choices only
  scaler: Scaler  # fitted on the present training rows
  fingerprint: str  # of the table: equal for all seeds and folds
  notes: tuple[str, ...] = ()  # sentences to print
  target: Target | None = None  # of a regression: its labels here are standardised by it

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted names."""
    return tuple(sorted(self.train.inputs))

  @property
  def num_classes(self) -> int:
    """Width of a head: classes, labels or regression targets."""
    return self.num_outputs

  def without_test(self) -> "Splits":
    """The same splits with the test arrays out of reach."""
    return dataclasses.replace(self, test=None)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """All rows of a data set, checked but neither split nor standardised."""

  name: str
  # {modality: float32, float64 or int32 [N, ...], or core.Sequence}, 0 where absent or ended
  inputs: dict[str, Any]
  label: np.ndarray  # as in Split
  mask: dict[str, np.ndarray]  # {modality: bool [N]}
  group: np.ndarray | None  # [N] int or str
  split: np.ndarray | None  # [N] str, "train" | "validation" | "test"
  task: str
  class_names: tuple[str, ...]
  encoders: dict[str, Any]
  notes: tuple[str, ...]
  fingerprint: str
  labelled: np.ndarray | None = None  # bool [N], False = the label is unknown (and 0); None = all
  weight: np.ndarray | None = None  # float64 [N] as given, not negative; None = 1

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted names."""
    return tuple(sorted(self.inputs))

  @property
  def num_outputs(self) -> int:
    """Classes, labels or regression targets."""
    return len(self.class_names) or int(np.prod(self.label.shape[1:], dtype=int))

  def splits(
    self,
    seed: int = 0,
    fold: int | None = None,
    folds: int | None = None,
    fractions: Sequence[float] = FRACTIONS,
    class_weights: str | None = None,
    weighted_scores: bool = False,
    allow_straddling: bool = False,
  ) -> Splits:
    """Splits and standardises; the scaler reads the training rows only.

    Without `folds`, the table's own `split` column decides; a column without validation rows gives
    20 % of its training rows to validation. Where there is no column, `fractions` decide. With
    `folds=k`, part `fold` tests, the next part validates, the rest train, and a `split` column is
    set aside. What is drawn is drawn by group if there are groups, else stratified by class (or by
    labels). What was chosen for you is a note of the splits.

    Args:
      seed: of the shuffle.
      fold: which of the `folds`, 0-based.
      folds: number of parts, at least 3.
      fractions: train, validation and test share, positive, summing to 1. Default .6, .2, .2.
      class_weights: "balanced" weighs a training row of class c by n / (C n_c); None does not.
      weighted_scores: validation and test rows have the table's weights too, not training rows alone.
      allow_straddling: take a `split` column with groups in several of its parts as it is.

    Raises:
      DataError: an empty split or one without labels or weights, a group in several parts of the
        `split` column, too many folds, fractions that are none, class weights of what are no classes,
        or weighted scores without weights.
    """
    if folds is None and fold is None:
      parts, said = self._parts(seed, fractions, allow_straddling)
    else:
      parts, said = self._fold(seed, fold, folds)
    rows = {name: np.flatnonzero(parts == i) for i, name in enumerate(_splitting.SPLITS)}
    said += _presence.notes(rows, self.mask, self.label, self.task, self.class_names, self.labelled)
    said += _counting.label_notes(self.labelled, rows)
    scaler = Scaler.fit(self.inputs, self.mask, rows["train"])
    weight, weighed = _counting.weights(self, rows, class_weights, weighted_scores)
    made = {n: self._take(index, scaler)._replace(weight=weight[n]) for n, index in rows.items()}
    target = None
    if self.task == REGRESSION:
      known = (
        rows["train"] if self.labelled is None else rows["train"][self.labelled[rows["train"]]]
      )
      target = Target.fit(self.label[known])
      made = {name: s._replace(label=target.apply(s.label)) for name, s in made.items()}
    return Splits(
      **made,
      target=target,
      name=self.name,
      task=self.task,
      num_outputs=self.num_outputs,
      class_names=self.class_names,
      encoders=dict(self.encoders),
      scaler=scaler,
      fingerprint=self.fingerprint,
      notes=(*self.notes, *said, *weighed),
    )

  def _strata(self) -> np.ndarray:
    """Classes `[N]` or labels `[N, L]`; rows without a label are a stratum of their own."""
    known = np.ones(len(self.label), bool) if self.labelled is None else self.labelled
    if self.task == MULTILABEL:
      return np.column_stack([np.where(known[:, None], self.label, 0), ~known])
    return np.where(known, self.label if self.task == CLASSIFICATION else 0, -1)

  def _draw(self, rows: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Which of `rows` go to which part; no other row is read."""
    if self.group is not None:
      return _splitting.by_group(self.group[rows], fractions, seed)
    return _splitting.stratified(self._strata()[rows], fractions, seed)

  def _how(self) -> str:
    if self.group is not None:
      return "by group"
    by = {CLASSIFICATION: "stratified by class", MULTILABEL: "stratified by label"}
    return by.get(self.task, "drawn at random")

  def _parts(
    self, seed: int, fractions: Sequence[float], allow_straddling: bool
  ) -> tuple[np.ndarray, list[str]]:
    if self.split is None:
      check_fractions(fractions)
      parts = self._draw(np.arange(len(self.label)), fractions, seed)
      _split_column.check_parts(parts, given=False)
      return parts, []
    parts = np.stack([self.split == name for name in _splitting.SPLITS]).argmax(0)
    return _split_column.complete(
      parts,
      self.group,
      allow_straddling,
      lambda rows, share: self._draw(rows, share, seed),
      self._how(),
    )

  def _fold(self, seed: int, fold: int | None, folds: int | None) -> tuple[np.ndarray, list[str]]:
    if folds is None or fold is None:
      raise DataError(f"fold and folds go together, got fold={fold} and folds={folds}")
    if folds < 3:
      raise DataError(f"folds must be at least 3 (train, validation, test), got {folds}")
    if not 0 <= fold < folds:
      raise DataError(f"fold must lie in 0..{folds - 1}, got {fold}")
    if self.group is not None:
      parts = _splitting.folds_by_group(self.group, folds, seed)
    else:
      parts = _splitting.folds_stratified(self._strata(), folds, seed)
    said = []
    if self.split is not None:
      own = ", ".join(f"{name} {int((self.split == name).sum())}" for name in _splitting.SPLITS)
      said = [
        f"the split column ({own} rows) is set aside: {folds} folds of all rows, {self._how()}"
      ]
    return _splitting.of_fold(parts, fold, folds), said

  def _take(self, index: np.ndarray, scaler: Scaler) -> Split:
    mask = {m: v[index] for m, v in sorted(self.mask.items())}
    inputs = scaler.apply({m: _sequences.take(self.inputs[m], index) for m in mask}, mask)
    group = None if self.group is None else self.group[index]
    labelled = None if self.labelled is None else self.labelled[index]
    return Split(inputs, self.label[index], mask, index.astype(np.int32), group, labelled=labelled)


def check_fractions(fractions: Sequence[float]) -> None:
  """Raises DataError unless these are three positive shares that sum to 1."""
  numeric = not isinstance(fractions, str) and np.asarray(fractions).dtype.kind in "iuf"
  share = np.asarray(fractions if numeric else (), float)
  if share.shape != (3,) or not (share > 0).all() or abs(share.sum() - 1) > 1e-6:
    raise DataError(
      f"fractions must be three positive shares (train, validation, test) that sum to 1, "
      f"got {fractions!r}"
    )
