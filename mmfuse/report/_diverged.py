"""Runs and trials that a non-finite loss or gradient ended, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmfuse.report._format import plural
from mmfuse.report._records import Record


def diverged(method: str, records: Sequence[Record]) -> list[str]:
  """Notes on a row: how many of its runs diverged (`diverged_at`), and which of its trials."""
  notes = []
  steps = [r["diverged_at"] for r in records if r.get("diverged_at") is not None]
  if steps:
    first = f"{'first ' if len(steps) > 1 else ''}at step {min(steps)}"
    notes.append(f"{method}: {len(steps)} of {plural(len(records), 'run')} diverged, {first}.")
  points: dict[str, list[bool]] = {}
  for trial in _others(records):
    points.setdefault(_point(trial), []).append(trial.get("diverged_at") is not None)
  lost = {p: f"{sum(d)} of {plural(len(d), 'run')}" for p, d in points.items() if any(d)}
  if len(lost) == 1:
    ((point, runs),) = lost.items()
    notes.append(f"{method}: a trial at {point} diverged ({runs}).")
  elif lost:
    said = ", ".join(f"{point} ({runs})" for point, runs in lost.items())
    notes.append(f"{method}: {len(lost)} trials diverged: {said}.")
  return notes


def _others(records: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
  """The runs of the searches but for the chosen points', which are final runs.

  All seeds of a fold tell of the same search.
  """
  by_fold: dict[Any, Record] = {}
  for record in records:
    by_fold.setdefault(record.get("fold"), record)
  for record in by_fold.values():
    tuning = record.get("tuning") or {}
    chosen = record.get("learning_rate"), tuning.get("hyper") or {}
    for trial in tuning.get("trials") or ():
      if (trial.get("learning_rate"), trial.get("hyper") or {}) != chosen:
        yield trial


def _point(trial: Mapping[str, Any]) -> str:
  """rate 0.3, lam 2."""
  hyper = [f"{name} {value}" for name, value in (trial.get("hyper") or {}).items()]
  return ", ".join([f"rate {trial['learning_rate']:.3g}", *hyper])
