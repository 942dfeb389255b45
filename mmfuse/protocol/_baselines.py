"""Baselines of every table: `linear`, `linear/<modality>`, and the constant predictor.

They are deterministic, so a split has one score of each: `baselines.json`, not `results.jsonl`.
"""

import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from mmfuse import report, tasks, train
from mmfuse.core import Outputs, Unavailable
from mmfuse.names import SEGMENTATION
from mmfuse.protocol import _linear, _ranked
from mmfuse.protocol._store import read_json, write_json
from mmfuse.tree import FUSED

LINEAR = report.LINEAR
CONSTANT = report.CONSTANT


class Line(NamedTuple):
  """A baseline on one split, before any test row is read."""

  name: str  # "linear", "linear/<modality>"
  modality: str | None = None  # None = all of them, side by side
  fit: _linear.Fit | None = None
  tried: int = 0  # training rows that C was chosen with
  rows: Mapping[str, int] = {}  # {"train": that could be used, "validation": scored}
  validation: Mapping[str, float | None] = {}  # {metric: value}
  why: str | None = None  # there is no fit


def judged(
  splits: Any, split: Any, rows: np.ndarray, logits: np.ndarray
) -> dict[str, float | None]:
  """{metric: value} of the logits [n, C] of some rows of a split; None where it is not finite.

  Of a segmentation [n, H, W, C], and no threshold is chosen for them: it is .5.
  """
  metric, batch = tasks.metric_of(splits), train.to_batch(split)
  total = len(split.index)
  every = np.zeros((total, *logits.shape[1:]), np.float32)
  weight = np.zeros(total, np.float32)
  every[rows], weight[rows] = logits, batch.weight[rows]
  outputs = Outputs(every)
  nothing = metric.init(outputs)
  sums = metric.update(nothing, outputs, batch._replace(weight=cast(Any, weight)))
  metric = metric if metric.fit is None else metric.fit(metric, nothing)
  found = metric.compute(sums)[FUSED]
  return {k: float(v) if math.isfinite(v) else None for k, v in found.items()}


def constant(splits: Any, part: str) -> dict[str, float | None]:
  """{metric: value} of the constant predictor, from the labels of the training rows."""
  labels = splits.train.label[_linear.usable(splits.train, None)]
  logits = tasks.constant(labels, splits.task, splits.num_outputs)
  split = getattr(splits, part)
  rows = _linear.usable(split, None)
  places = np.shape(split.label)[1:] if splits.task == SEGMENTATION else ()
  return judged(splits, split, rows, np.broadcast_to(logits, (len(rows), *places, len(logits))))


def _no_row(modality: str | None, part: str) -> str:
  return f"no {part} row has a label" if modality is None else f"{modality} is in no {part} row"


def _fit_line(splits: Any, name: str, modality: str | None) -> Line:
  modalities = splits.modalities if modality is None else (modality,)
  rows = {p: _linear.usable(getattr(splits, p), modality) for p in ("train", "validation")}
  for part, found in rows.items():
    if not len(found):
      raise Unavailable(_no_row(modality, "training" if part == "train" else part))
  primary = tasks.get(splits.task).primary
  sign = next(s.sign for s in tasks.metric_of(splits).scores if s.name == primary)

  def scores(fit: _linear.Fit) -> dict[str, float | None]:
    there = rows["validation"]
    return judged(
      splits, splits.validation, there, fit.logits(splits.validation, there, splits.num_outputs)
    )

  def judge(fit: _linear.Fit) -> float:
    score = scores(fit)[primary]
    return -math.inf if score is None else sign * score

  fit, tried = _linear.choose(splits.train, modalities, rows["train"], splits.task, judge)
  counts = {part: len(found) for part, found in rows.items()}
  return Line(name, modality, fit, tried, counts, scores(fit))


def fit_lines(splits: Any, failed: Callable[[Line, Exception], str]) -> list[Line]:
  """`linear` and, in the rows that have it, `linear/<m>`: from training and validation rows alone.

  `failed` makes a reason of an error: a baseline never takes the run down.
  """
  lines: list[Line] = []
  if tasks.get(splits.task).linear is None:
    return lines
  for modality in (None, *splits.modalities):
    line = Line(LINEAR if modality is None else f"{LINEAR}/{modality}", modality)
    try:
      lines.append(_fit_line(splits, line.name, modality))
    except Unavailable as reason:
      lines.append(line._replace(why=str(reason)))
    except Exception as error:
      lines.append(line._replace(why=failed(line, error)))
  return lines


def _entry(line: Line, splits: Any, fold: int | None) -> dict[str, Any]:
  """A line of `baselines.json`; opens the test rows."""
  name, why, fit = tasks.get(splits.task).primary, line.why, line.fit
  rows = _linear.usable(splits.test, line.modality)
  scores: dict[str, float | None] = {}
  if fit is not None and len(rows):
    logits = fit.logits(splits.test, rows, splits.num_outputs)
    scores = judged(splits, splits.test, rows, logits)
  elif fit is not None:
    why = _no_row(line.modality, "test")
  return {
    "name": line.name,
    "fold": fold,
    "metric": name,
    "test": scores.get(name),
    "validation": line.validation.get(name),
    "C": fit and fit.C,
    "rows": {**line.rows, "test": len(rows)} if fit is not None else {},
    "rows_of_choice": fit and line.tried,
    "rows_of_fit": fit and fit.rows,
    "columns": fit and len(fit.weights),
    "converged": fit and fit.converged,
    "scores": {"validation": dict(line.validation), "test": scores},
    "why": why,
  }


def _constant_entry(splits: Any, fold: int | None) -> dict[str, Any]:
  name = tasks.get(splits.task).primary
  if _ranked.collected_of(splits.task) is not None:
    scores = {
      part: _ranked.chance(splits, selecting=part == "validation")
      for part in ("validation", "test")
    }
  else:
    scores = {part: constant(splits, part) for part in ("validation", "test")}
  return {
    "name": CONSTANT,
    "fold": fold,
    "metric": name,
    **{part: found[name] for part, found in scores.items()},
    "rows": {
      part: len(_linear.usable(getattr(splits, part), None))
      for part in ("train", "validation", "test")
    },
    "scores": scores,
    "why": None,
  }


def path_of(folder: pathlib.Path) -> pathlib.Path:
  """Where the baselines of a run are kept."""
  return folder / "baselines.json"


def kept(folder: pathlib.Path) -> list[dict[str, Any]] | None:
  """The baselines that an earlier report of this run wrote; None where one failed or there are none."""
  if not path_of(folder).is_file():
    return None
  found = read_json(path_of(folder))
  return None if any(str(e["why"]).startswith("failed") for e in found) else found


def write_entries(
  folder: pathlib.Path, lines: Mapping[Any, list[Line]], splits: Mapping[Any, Any]
) -> list[dict[str, Any]]:
  """Scores the lines of every split on its test rows -> what `baselines.json` now holds."""
  found = [_entry(line, splits[fold], fold) for fold, made in lines.items() for line in made]
  found += [
    _constant_entry(s, fold) for fold, s in splits.items() if _has_constant(tasks.get(s.task))
  ]
  write_json(path_of(folder), found)
  return found


def _has_constant(task: tasks.Task) -> bool:
  return task.constant is not None or (
    task.collected is not None and task.collected.chance is not None
  )


def said(lines: list[Line], task: str, began: float) -> str:
  """What the validation rows of the first split say, for the terminal."""
  name = tasks.get(task).primary
  score = lambda line: (
    "n/a" if line.validation.get(name) is None else f"{line.validation[name]:.3f}"
  )
  parts = ", ".join(f"{line.name} {score(line)}" for line in lines)
  return f"baselines, validation {name}: {parts} ({time.perf_counter() - began:.0f} s)"


def notes(entries: list[dict[str, Any]]) -> list[str]:
  """What was decided for the user, or did not work out."""
  out = []
  for e in entries:
    if e.get("C") is None:
      continue
    rows, tried, fitted = e["rows"]["train"], e["rows_of_choice"], e["rows_of_fit"]
    if fitted < rows:
      out.append(
        f"{e['name']} is fitted to {fitted:,} of {rows:,} training rows, which is what fits"
      )
    if tried < fitted:
      out.append(f"{e['name']}: C was chosen with {tried:,} of {rows:,} training rows, for time")
    if not e["converged"]:
      out.append(
        f"{e['name']} did not converge in {_linear.ITERATIONS:,} iterations (C = {e['C']:g})"
      )
  return list(dict.fromkeys(out))
