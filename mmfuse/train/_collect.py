"""Collected scores of a method: which parts they read, before the report and in it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse import metrics, tasks
from mmfuse.core import Method, State, Unavailable
from mmfuse.train._evaluate import predict_split
from mmfuse.train._result import RunLog
from mmfuse.train._selection import passport
from mmfuse.tree import FUSED

# What a role is where no part has its name.
SELECTING = {"query": "validation", "database": "train", "test": "validation"}
REPORTING = {"query": "test", "database": "train"}


def part_of(splits: Any, role: str, *, selecting: bool) -> Any:
  """The part that a collected score reads as `role`.

  In selection "query" and "test" are the validation rows and "database" the training rows; in the
  report a part of that name, else "query" is the test rows and "database" the training rows.

  Args:
    splits: `data.Splits`.
    role: "query", "database", "test", or the name of a part.
    selecting: True before the last choice is made, False in the report.

  Raises:
    core.Unavailable: a part that is not there, or sealed until the report.
  """
  if selecting and role not in SELECTING:
    raise Unavailable(f"the part {role!r} is sealed until the report")
  name = SELECTING[role] if selecting else role
  if not selecting and role not in splits.parts:
    name = REPORTING.get(role, role)
  if name not in splits.parts:
    raise Unavailable(f"it reads the part {role!r}, and the data have: {', '.join(splits.parts)}")
  return splits.parts[name]


def collect(
  method: Method,
  state: State,
  splits: Any,
  collected: metrics.Collected,
  *,
  selecting: bool,
  batch_size: int = 512,
) -> dict[str, float]:
  """{score: value} of one state on the parts that `collected` reads.

  Args:
    method, state: what predicts.
    splits: `data.Splits`.
    collected: `metrics.map_at_k`, `metrics.ood_auroc`, or one of your own.
    selecting: True before the last choice is made (validation and training rows alone), False in
      the report.
    batch_size: rows per compiled call, default 512.

  Raises:
    core.Unavailable: a part that is not there, or sealed.
  """
  return collected.compute(*_asked(method, state, splits, collected, selecting, batch_size))


def collect_curves(
  method: Method, state: State, splits: Any, collected: metrics.Collected, *, batch_size: int = 512
) -> tuple[dict[str, float], dict[str, list[float]]]:
  """({score: value}, {curve: values}) of the report: `collect`, and the curves where all is finite.

  Args:
    method, state, splits, collected, batch_size: as in `collect`.
  """
  outputs, parts = _asked(method, state, splits, collected, False, batch_size)
  found = collected.compute(outputs, parts)
  drawn = collected.curves is not None and all(np.isfinite(v) for v in found.values())
  return found, collected.curves(outputs, parts) if drawn and collected.curves else {}


def _asked(method, state, splits, collected, selecting: bool, batch_size: int):
  """({part: outputs}, {part: source}) of what is read."""
  parts = {r: part_of(splits, r, selecting=selecting) for r in collected.reads}
  outputs = {
    r: predict_split(method, state, part, batch_size=batch_size) for r, part in parts.items()
  }
  return outputs, parts


def by_heads(found: Mapping[str, float]) -> dict[str, dict[str, float]]:
  """{head: {score: value}} of collected scores: "map_at_50/a->b" is the score map_at_50 of a->b."""
  heads: dict[str, dict[str, float]] = {}
  for name, value in found.items():
    score, _, head = name.partition("/")
    heads.setdefault(head or FUSED, {})[score] = value
  return heads


def judge_run(method: Method, state: State, data: Any, log: RunLog, select: str) -> None:
  """Writes what a finished run is worth into its log, where the task is judged by whole parts.

  Args:
    method, state: what predicts.
    data: `data.Splits`, whose training and validation rows are read.
    log: of the run.
    select: the score that it is compared by.

  Raises:
    ValueError: a score that the task does not have.
    Unavailable: from `collect`.
  """
  collected = tasks.get(data.task).collected
  if collected is None or data.validation is None or log.selected is None:
    return
  heads = by_heads(collect(method, state, data, collected, selecting=True))
  if select not in heads[FUSED]:
    raise ValueError(f"cannot select by {select!r}; this task has: {', '.join(heads[FUSED])}")
  sign = passport(select, tasks.metric_of(data)).sign
  log.judge(heads, sign * heads[FUSED][select])
