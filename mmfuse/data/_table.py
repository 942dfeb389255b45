"""Table: a data set before it is split and standardised."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.data import _counting, _presence, _sequences, _split_column, _splitting
from mmfuse.data._error import DataError
from mmfuse.data._scaler import Scaler
from mmfuse.data._split import Split, Splits
from mmfuse.data._target import Target
from mmfuse.names import CLASSIFICATION, MULTILABEL, REGRESSION

FRACTIONS = (0.6, 0.2, 0.2)  # train, validation, test


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """All rows of a data set, checked but neither split nor standardised."""

  name: str  # of the data set
  # {modality: float32, float64 or int32 [N, ...], or core.Sequence}, 0 where absent or ended
  inputs: dict[str, Any]
  label: Any  # as in Split
  mask: dict[str, np.ndarray]  # {modality: bool [N]}
  group: np.ndarray | None  # [N] int or str
  split: np.ndarray | None  # [N] str, one of the parts of `Splits`
  task: str  # one of names.TASKS
  class_names: tuple[str, ...]  # [num_outputs], empty for regression
  encoders: dict[str, Any]  # {modality: spec or module}, the user's choices only
  notes: tuple[str, ...]  # sentences to print
  fingerprint: str  # of its content, `_fingerprint.stamped`
  labelled: np.ndarray | None = None  # bool [N], False = the label is unknown (and 0); None = all
  weight: np.ndarray | None = None  # float64 [N] as given, not negative; None = 1
  extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # {name: [N, ...]}
  truth: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # {name: [N, ...]}
  # {modality: "standard", "unit" or "raw"} where nothing else is asked for; standard where not named
  scale: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(next(iter(self.mask.values())))

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted names."""
    return tuple(sorted(self.inputs))

  @property
  def num_outputs(self) -> int:
    """Classes, labels or regression targets."""
    if self.label is None:
      return 0
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
    scale: Mapping[str, str] | None = None,
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
      scale: {modality: "standard", "unit" or "raw"}, see `Scaler.fit`; default the table's own.

    Raises:
      DataError: an empty split or one without labels or weights, a group in several parts of the
        `split` column, too many folds, fractions that are none, class weights of what are no classes,
        or weighted scores without weights.
    """
    if folds is None and fold is None:
      parts, said = self._parts(seed, fractions, allow_straddling)
    else:
      parts, said = self._fold(seed, fold, folds)
    rows = {name: np.flatnonzero(parts == i) for i, name in enumerate(_splitting.PARTS)}
    rows = {name: r for name, r in rows.items() if len(r) or name in _splitting.SPLITS}
    drawn = {name: rows[name] for name in _splitting.SPLITS}
    said += _presence.notes(
      drawn, self.mask, self.label, self.task, self.class_names, self.labelled
    )
    said += _counting.label_notes(self.labelled, drawn)
    usual = {m: s for m, s in self.scale.items() if m in self.inputs}
    scale = {**usual, **(scale or {})}
    scaler = Scaler.fit(self.inputs, self.mask, rows["train"], scale)
    said += scaler.notes(scale)
    weight, weighed = _counting.weights(self, rows, class_weights, weighted_scores)
    made = {n: self._take(index, scaler).replace(weight=weight[n]) for n, index in rows.items()}
    target = None
    if self.task == REGRESSION:
      known = (
        rows["train"] if self.labelled is None else rows["train"][self.labelled[rows["train"]]]
      )
      target = Target.fit(self.label[known])
      made = {name: s.replace(label=target.apply(s.label)) for name, s in made.items()}
    return Splits(
      parts=made,
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
    if self.label is None:
      return np.zeros(len(self), int)
    known = np.ones(len(self), bool) if self.labelled is None else self.labelled
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
      parts = self._draw(np.arange(len(self)), fractions, seed)
      _split_column.check_parts(parts, given=False)
      return parts, []
    parts = np.stack([self.split == name for name in _splitting.PARTS]).argmax(0)
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
    drawn = np.arange(len(self))
    said = []
    parts = np.zeros(len(self), int)
    if self.split is not None:
      own = ", ".join(f"{name} {int((self.split == name).sum())}" for name in _splitting.SPLITS)
      said = [
        f"the split column ({own} rows) is set aside: {folds} folds of all rows, {self._how()}"
      ]
      for i, name in enumerate(_splitting.PARTS):
        if name in _splitting.FURTHER:
          parts[self.split == name] = i
      drawn = np.flatnonzero(parts == 0)
    if self.group is not None:
      dealt = _splitting.folds_by_group(self.group[drawn], folds, seed)
    else:
      dealt = _splitting.folds_stratified(self._strata()[drawn], folds, seed)
    parts[drawn] = _splitting.of_fold(dealt, fold, folds)
    return parts, said

  def _take(self, index: np.ndarray, scaler: Scaler) -> Split:
    mask = {m: v[index] for m, v in sorted(self.mask.items())}
    inputs = scaler.apply({m: _sequences.take(self.inputs[m], index) for m in mask}, mask)
    cut: Any = lambda x: None if x is None else x[index]
    return Split(
      inputs,
      cut(self.label),
      mask,
      index.astype(np.int32),
      cut(self.group),
      labelled=cut(self.labelled),
      extra={n: x[index] for n, x in self.extra.items()},
      truth={n: x[index] for n, x in self.truth.items()},
    )


def check_fractions(fractions: Sequence[float]) -> None:
  """Raises DataError unless these are three positive shares that sum to 1."""
  numeric = not isinstance(fractions, str) and np.asarray(fractions).dtype.kind in "iuf"
  share = np.asarray(fractions if numeric else (), float)
  if share.shape != (3,) or not (share > 0).all() or abs(share.sum() - 1) > 1e-6:
    raise DataError(
      f"fractions must be three positive shares (train, validation, test) that sum to 1, "
      f"got {fractions!r}"
    )
