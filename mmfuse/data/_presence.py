"""What a part of a split lacks: a modality, a class or a label without a row there, with counts."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmfuse.names import CLASSIFICATION, MULTILABEL

NAMED = 5  # at most, in one note


def notes(
  rows: Mapping[str, np.ndarray],
  mask: Mapping[str, np.ndarray],
  label: np.ndarray,
  task: str,
  class_names: Sequence[str],
  labelled: np.ndarray | None = None,
) -> list[str]:
  """A sentence on modalities, and one on classes or labels, that some part has no row of.

  Args:
    rows: {part: its rows, int}, `train` among them.
    mask: {modality: bool `[N]`}.
    label: `[N]` classes, or `[N, L]` 0/1; a regression has neither.
    task: what the labels are.
    class_names: of classes or labels.
    labelled: bool `[N]`, False = the label is unknown; None = all are known.
  """
  present = {m: {p: int(mask[m][r].sum()) for p, r in rows.items()} for m in sorted(mask)}
  found = [_note("modality", "modalities", "row", present)]
  if labelled is not None:
    rows = {p: r[labelled[r]] for p, r in rows.items()}
  if task == CLASSIFICATION:
    number = len(class_names)
    counts = {p: np.bincount(label[r], minlength=number) for p, r in rows.items()}
    found.append(_note("class", "classes", "row", _by_name(class_names, counts)))
  elif task == MULTILABEL:
    counts = {p: (label[r] > 0).sum(0) for p, r in rows.items()}
    found.append(_note("label", "labels", "positive row", _by_name(class_names, counts)))
  return [note for note in found if note]


def _by_name(names: Sequence[str], counts: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
  return {name: {p: int(n[i]) for p, n in counts.items()} for i, name in enumerate(names)}


def _note(one: str, many: str, what: str, counts: Mapping[str, Mapping[str, int]]) -> str:
  """`1 modality has no row in some part: b (train 140, validation 50, test 0)`, or nothing."""
  lacking = [name for name, n in counts.items() if not all(n.values())]
  lacking.sort(key=lambda name: counts[name]["train"] > 0)  # what is never trained on comes first
  said = [
    f"{name} ({', '.join(f'{p} {n}' for p, n in counts[name].items())})" for name in lacking[:NAMED]
  ]
  if not said:
    return ""
  more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
  has = f"1 {one} has" if len(lacking) == 1 else f"{len(lacking)} {many} have"
  return f"{has} no {what} in some part: {', '.join(said)}{more}"
