"""What is said under a table of the data and the rows, and of what varies."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfuse import data
from mmfuse.protocol._config import Compare
from mmfuse.protocol._rows import Row
from mmfuse.report._format import plural


def of_splits(splits: Mapping[Any, data.Splits]) -> list[str]:
  """The notes on the data: what holds for every fold once, the rest with its fold."""
  said: dict[str, list[Any]] = {}
  for fold, s in splits.items():
    for note in s.notes:
      said.setdefault(note, []).append(fold)
  shared = [note for note, folds in said.items() if len(folds) == len(splits)]
  return shared + [
    f"fold {', '.join(map(str, folds))}: {note}"
    for note, folds in said.items()
    if note not in shared
  ]


def on_readers(rows: Iterable[Row]) -> list[str]:
  """A note on rows whose validation score says less than that of the others."""
  names = [row.name for row in rows if row.entry.reads_validation]
  if not names:
    return []
  return [
    f"validation rows also steer the training of {', '.join(names)}: their column flatters them"
  ]


def on_complete_rows(rows: Iterable[Row], splits: Mapping[Any, data.Splits]) -> list[str]:
  """A note on rows that learn from complete rows alone, where training has others."""
  names = [row.name for row in rows if row.entry.complete_rows]
  counts = [
    (int(np.all([*s.train.mask.values()], axis=0).sum()), len(s.train)) for s in splits.values()
  ]
  if not names or all(whole == total for whole, total in counts):
    return []
  said = ", ".join(f"{whole:,} of {total:,}" for whole, total in dict.fromkeys(counts))
  verb = "learns" if len(names) == 1 else "learn"
  return [f"{', '.join(names)} {verb} from training rows that have all modalities: {said}"]


def varies(cfg: Compare) -> str:
  if cfg.folds is None:
    return f"{plural(cfg.seeds, 'seed')} of one split (initialisation and batch order)"
  seeds = plural(cfg.seeds, "seed")
  return f"{plural(cfg.folds, 'fold')} x {seeds} (test rows, initialisation and batch order)"
