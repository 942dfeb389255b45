"""How long a comparison will take, said before it begins."""

import time
from collections.abc import Mapping
from typing import Any

from mmfuse import train
from mmfuse.protocol._config import Compare
from mmfuse.protocol._progress import duration
from mmfuse.protocol._rows import Row
from mmfuse.protocol._search import Search
from mmfuse.report._format import plural

COST = {"aggregator": 1.8, "weighting": 1.1, "modulator": 1.1, "schedule": 1.3}  # over a plain step


def _runs_per_row(row: Row, cfg: Compare) -> int:
  trial_seeds = min(cfg.trial_seeds, cfg.seeds)
  return len(row.trials(cfg)) * trial_seeds + cfg.seeds - trial_seeds


def remaining(cfg: Compare, rows: list[Row], searches: Mapping[Any, Search]) -> dict[str, int]:
  """{row: runs that are not on disk yet}, over all splits."""
  left = {}
  for row in rows:
    done = sum(len(s.store.run_files(row.slug, s.fold)) for s in searches.values())
    left[row.name] = max(0, _runs_per_row(row, cfg) * len(searches) - done)
  return left


def _cost(row: Row, modalities: int) -> float:
  """Of a step, over that of `joint`."""
  return COST.get(row.entry.kind, 1.0) / (modalities if row.entry.per_modality else 1)


def estimate(cfg: Compare, rows: list[Row], search: Search, left: Mapping[str, int]) -> str:
  """A sentence; two epochs of one row are timed, whose programs are needed anyway.

  A search that ends at an edge of the rates goes on beyond it, so that there may be more runs.

  Args:
    cfg: the configuration, filled in.
    rows: of the comparison.
    search: of the first split.
    left: {row: runs that are not there yet}.
  """
  waiting = [r for r in rows if left[r.name]]
  runs = sum(left.values())
  if not waiting:
    return "every run is there: only the report is written" if rows else "nothing to train"
  row = min(waiting, key=_timed_last)
  least = (
    "at least " if cfg.tune > 1 and not cfg.rates else ""
  )  # rates that are named stay as they are
  said = f"{least}{plural(runs, 'run')} of {plural(cfg.sizes[0], 'epoch')}"
  size = f"{plural(len(waiting), 'row')}, {said}"
  began = time.perf_counter()
  try:
    method = search.method(row, row.trials(cfg)[0])
    result = train.fit(
      method, search.splits, epochs=2, batch_size=cfg.batch_size, select=cfg.select
    )
  except Exception as error:  # the row itself will say so, with its traceback in errors.log
    return f"{size}: no estimate of the time, {row.name} fails ({type(error).__name__})"
  spent = time.perf_counter() - began
  step = result.logs[0].history[-1]["seconds_per_step"]
  steps = train.budget(len(search.splits.train.index), cfg.batch_size, cfg.epochs).epoch_steps
  parts = len(search.splits.modalities)
  cost = sum(_cost(r, parts) * left[r.name] for r in waiting) / _cost(row, parts) * cfg.sizes[0]
  programs = len(waiting) * (1 if cfg.folds is None else cfg.folds)
  compiling = max(0.0, spent - 2 * step * steps)
  # The first program is paid for, and the others find what it warmed up.
  about = duration(cost * step * steps * 1.2 + (programs - 1) * compiling * 0.7)
  more = ", more where the best rate is the first or last of those tried" if least else ""
  return f"{size}: about {about}{more}"


def _timed_last(row: Row) -> tuple[bool, bool, bool]:
  """`joint` is timed where it waits, else a fused row of the library."""
  return row.name != "joint", row.entry.kind == "own", row.entry.per_modality
