"""From records of runs to rows of a table: intervals, paired differences, Holm, marks, notes."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mmfuse import tasks
from mmfuse.metrics import Score
from mmfuse.report._best import best_by_validation, chosen_score
from mmfuse.report._diverged import diverged
from mmfuse.report._lines import CONSTANT, LINEAR, constant_scores, fields, less, reasons, scores_of
from mmfuse.report._missing import Missing, by_units, missing_of
from mmfuse.report._passports import passport, passports
from mmfuse.report._records import Record, check_unique
from mmfuse.report._statistics import Difference, Estimate, estimate, holm
from mmfuse.report._units import FUSED, UNIMODAL, by_run, difference, per_unit, value

DEFAULT_BASELINES = ("joint", "uniform")
MOST_DIRECTIONS = 6  # of a retrieval, whose further scores a table has room for
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Row(NamedTuple):
  """One method of the table."""

  method: str  # its name in the records
  runs: int  # records behind it
  test: Estimate | None  # of the fused prediction, over units; None without values
  unimodal: dict[str, Estimate | None]  # {modality: estimate of its head}; None without such a head
  validation: Estimate | None  # of the fused prediction
  differences: dict[str, Difference | None]  # {baseline: row - baseline}; its own is None
  scores: dict[str, Estimate]  # {further metric: estimate on the test rows}
  contribution: dict[str, float]  # {modality: mean score lost when it is masked}
  learning_rates: tuple[float, ...]  # the chosen ones, distinct, ascending (folds may differ)
  hyper: tuple[dict[str, Any], ...]  # the chosen other hyper-parameters, distinct
  edge: bool  # a chosen value lies on the edge of its grid
  spread: float | None  # of validation over the grid, mean over runs
  relative_step_time: float | None  # over a step of joint, mean over runs
  seconds_per_step: float | None  # mean over runs
  parameters: int | None  # largest over runs
  gradient_evaluations: int | None  # largest over runs, search included
  best: bool  # the best single modality by validation
  best_fused: bool = False  # the best of the other rows by validation
  trials: int | None = None  # points of the search that were tried, most over splits
  missing: Missing | None = (
    None  # scores over subsets of modalities, where the caller asks for them
  )


def bare(method: str, test: Estimate | None, **known: Any) -> Row:
  """The row of something that was not trained: what is not `known` is n/a."""
  nothing: dict[str, Any] = dict.fromkeys(Row._fields)
  empty = {"runs": 0, "unimodal": {}, "differences": {}, "scores": {}, "contribution": {}}
  plain = {"learning_rates": (), "hyper": (), "edge": False, "best": False}
  return Row(**{**nothing, **empty, **plain, **known, "method": method, "test": test})


class Summary(NamedTuple):
  """Everything the table, the plots and the sentence are made of."""

  rows: tuple[Row, ...]  # in the order of the records
  metric: str  # "accuracy", "macro_f1", "r2"...
  split: str  # "test", or "validation" where no record holds test scores
  modalities: tuple[str, ...]  # sorted
  baselines: tuple[str, ...]  # those asked for that were run
  unit: str  # "seed" or "fold": what an interval is over
  units: int  # how many of them
  seeds: int  # distinct seeds
  unavailable: dict[str, str]  # {method: why it has no row}
  majority: float | None  # score of the constant predictor
  info: dict[str, Any]  # what the caller says about the data and the run
  fingerprint: str | None  # of the data
  versions: dict[str, Any]  # of the first record
  notes: tuple[str, ...]  # what a reader must know: incomplete rows, missing baselines, edges
  lines: tuple[Row, ...] = ()  # linear, linear/<m>: one score a split or fold, no runs
  own: Mapping[str, Score] = {}  # {name: passport} of scores that are none of ours
  constant: Mapping[str, float] = {}  # {score: the constant predictor's}, mean over splits

  def passport(self, name: str) -> Score:
    """Direction and unit of a score of the table."""
    return passport(name, self.own)

  @property
  def score(self) -> Score:
    """The passport of `metric`."""
    return self.passport(self.metric)

  @property
  def task(self) -> tasks.Task | None:
    """Of the data, None where the caller does not say."""
    return tasks.TASKS.get(str(self.info.get("task")))

  @property
  def further(self) -> list[str]:
    """The other scores that a row has, sorted."""
    return sorted({name for row in self.rows for name in row.scores} - {self.metric})

  @property
  def beside(self) -> list[str]:
    """Those of them that every table shows: where a task is judged by whole parts, all."""
    judged = self.task is not None and self.task.collected is not None
    return self.further if judged and len(self.modalities) <= MOST_DIRECTIONS else []


def _mean(values: Iterable[Any]) -> float | None:
  known = [float(v) for v in values if v is not None and np.isfinite(v)]
  return float(np.mean(known)) if known else None


def _largest(records: Sequence[Record], field: str) -> int | None:
  return max((int(r[field]) for r in records if r.get(field) is not None), default=None)


def _distinct(values: Iterable[Any]) -> list[Any]:
  out: list[Any] = []
  for v in values:
    if v is not None and v not in out:
      out.append(v)
  return out


def _tried(tuning: Mapping[str, Any]) -> int:
  """How many points a search tried, each with several seeds."""
  points = [(t.get("learning_rate"), t.get("hyper") or None) for t in tuning.get("trials") or ()]
  return len(_distinct(points))


def _row(method: str, records: Sequence[Record], split: str, modalities: Sequence[str]) -> Row:
  def over_units(pick: str, head: str) -> Estimate | None:
    runs = by_run(records, pick, head)
    return estimate(per_unit(runs, runs))

  tuning = [r.get("tuning") or {} for r in records]
  scores = {}
  for name in sorted({k for r in records for k in (r.get("scores") or {}).get(split, {})}):
    further = [{**r, split: (r.get("scores") or {}).get(split, {})} for r in records]
    runs = by_run(further, split, name)
    found = estimate(per_unit(runs, runs))
    if found is not None:
      scores[name] = found
  lost = {m: _mean((r.get("contribution") or {}).get(m) for r in records) for m in modalities}
  return Row(
    method=method,
    runs=len(records),
    test=over_units(split, FUSED),
    unimodal={m: over_units(split, m) for m in modalities},
    validation=over_units("validation", FUSED),
    differences={},
    scores=scores,
    contribution={m: v for m, v in lost.items() if v is not None},
    learning_rates=tuple(sorted(_distinct(r.get("learning_rate") for r in records))),
    hyper=tuple(_distinct(t.get("hyper") or None for t in tuning)),
    edge=any(t.get("edge") for t in tuning),
    spread=_mean(t.get("spread") for t in tuning),
    relative_step_time=_mean(r.get("relative_step_time") for r in records),
    seconds_per_step=_mean(r.get("seconds_per_step") for r in records),
    parameters=_largest(records, "parameters"),
    gradient_evaluations=_largest(records, "gradient_evaluations"),
    best=False,
    trials=max((n for n in map(_tried, tuning) if n), default=None),
  )


def _compare(
  rows: Sequence[Row], groups: Mapping[str, Sequence[Record]], baselines: Sequence[str], split: str
) -> list[Row]:
  """Rows with their differences to each baseline; Holm over the rows of each baseline's column."""
  table: dict[str, dict[str, Difference | None]] = {r.method: {} for r in rows}
  for base in baselines:
    found = {
      r.method: None if r.method == base else difference(groups[r.method], groups[base], split)
      for r in rows
    }
    adjusted = holm({m: d.p for m, d in found.items() if d is not None and d.p is not None})
    for m, d in found.items():
      table[m][base] = d._replace(p_holm=adjusted.get(m)) if d is not None else None
  return [r._replace(differences=table[r.method]) for r in rows]


def _mark_best(
  rows: Sequence[Row], groups: Mapping[str, Sequence[Record]], own: Mapping[str, Score]
) -> list[Row]:
  single = best_by_validation({m: g for m, g in groups.items() if m.startswith(UNIMODAL)}, own)
  fused = best_by_validation({m: g for m, g in groups.items() if not m.startswith(UNIMODAL)}, own)
  return [r._replace(best=r.method == single, best_fused=r.method == fused) for r in rows]


def _against_linear(
  row: Row, records: Sequence[Record], split: str, linear: Mapping[Any, float]
) -> Row:
  """The row with its difference to `linear`, where that has a score."""
  found = less(by_run(records, split, FUSED), linear)
  return row if found is None else row._replace(differences={**row.differences, LINEAR: found})


def _one(records: Sequence[Record], field: str, default: Any, why: str) -> Any:
  """The one value of a field over all records; a ValueError says where there are several."""
  first: dict[Any, str] = {}
  for r in records:
    first.setdefault(r.get(field, default), r["method"])
  if len(first) > 1:
    said = ", ".join(f"{v} ({m})" for v, m in first.items())
    raise ValueError(f"one table cannot mix records of different {why}: {said}")
  return next(iter(first), default)


def _unit(records: Sequence[Record]) -> str:
  folded = {r.get("fold") is not None for r in records}
  if len(folded) > 1:
    raise ValueError("one table cannot mix records with folds and records without")
  return "fold" if folded == {True} else "seed"


def _row_notes(row: Row, records: Sequence[Record], most: int, split: str) -> list[str]:
  notes = []
  known = sum(value(r, split, FUSED) is not None for r in records)
  if row.runs < most:
    notes.append(f"{row.method}: {row.runs} of {most} runs are done.")
  if not known:
    notes.append(f"{row.method}: no run gave a finite {split} score.")
  elif known < row.runs:
    notes.append(f"{row.method}: {row.runs - known} of {row.runs} runs gave no finite score.")
  return [*notes, *diverged(row.method, records)]


def _notes(
  rows: Sequence[Row],
  groups: Mapping[str, Sequence[Record]],
  wanted: Sequence[str],
  unavailable: Mapping[str, str],
  split: str,
) -> list[str]:
  """What a reader must know beside the numbers."""
  notes = []
  if rows and split == "validation":
    notes.append("No test scores were opened: these are validation scores, which chose the epoch.")
  for base in wanted if rows else ():
    if base not in groups:
      why = f" ({unavailable[base]})" if base in unavailable else ""
      notes.append(f"{base} was not run{why}: no differences to it.")
  most = max((r.runs for r in rows), default=0)
  for row in rows:
    notes += _row_notes(row, groups[row.method], most, split)
    if row.method in unavailable:
      notes.append(f"{row.method}: not all runs are there: {unavailable[row.method]}")
  if len(_distinct(r.get("versions") for group in groups.values() for r in group)) > 1:
    notes.append("The rows were run with different versions; results.jsonl holds them per row.")
  return notes


def summarise(
  records: Iterable[Record],
  *,
  baselines: Sequence[str] = DEFAULT_BASELINES,
  unavailable: Mapping[str, str] = _NOTHING,
  majority: float | None = None,
  lines: Iterable[Record] = (),
  info: Mapping[str, Any] = _NOTHING,
) -> Summary:
  """The table of a set of records.

  The unit of every interval and test is the seed, or the fold where records have folds: seeds are
  averaged within a fold first, and differences are paired over (fold, seed). Holm's correction goes
  over the rows of each baseline's column. Rows named `unimodal/<m>` are single modalities, all others
  are fused; the best of either *by validation* is marked. Where no record holds a test score,
  validation scores are shown, and a note says so.

  Args:
    records: as in `results.jsonl`; only `method` and `seed` must be there, what is missing is n/a.
    baselines: methods every row is compared with, default joint and uniform; one that was not run is
      left out with a note.
    unavailable: {method: reason} of methods that could not run; default none.
    majority: score of the constant predictor; default None reads it off `lines`.
    lines: baselines as in `baselines.json`, default none: every row is compared with `linear`, by
      fold where there are folds; on one split that is a number, and the interval is the row's own.
      No test of it.
    info: what the caller says of the data and the run, default nothing: any of `name`, `task`,
      `sizes` (text or {split: rows}), `date`, `command`, `varies` ("5 seeds of one split"), `notes`
      (lines), `one_rate` (True: one learning rate for all rows), `missing` ({"kind", "select"}: show
      the scores over subsets of modalities), `scores` ({name: passport} of scores of your own, as
      `metrics.described` makes it: direction and unit).

  Raises:
    ValueError: nothing to show, two records of one (method, seed, fold), or records of different
      data (fingerprints) or metrics, or with and without folds.
  """
  records = list(records)
  if not records and not unavailable:
    raise ValueError("there are no records to summarise")
  check_unique(records)
  fingerprint = _one(records, "data_fingerprint", None, "data (data_fingerprint)")
  task = tasks.TASKS.get(str(info.get("task")))
  metric = _one(records, "metric", "accuracy" if task is None else task.primary, "metrics")
  own = passports(records, info.get("scores") or {})
  unit = _unit(records)
  groups: dict[str, list[Record]] = {}
  for r in records:
    groups.setdefault(r["method"], []).append(r)
  tested = any(value(r, "test", h) is not None for r in records for h in r.get("test") or {})
  validated = any(
    value(r, "validation", h) is not None for r in records for h in r.get("validation") or {}
  )
  split = "validation" if validated and not tested else "test"
  heads = {h for r in records for s in ("test", "validation") for h in r.get(s) or {}}
  modalities = tuple(sorted(heads - {FUSED}))
  run = tuple(b for b in baselines if b in groups)
  rows = [_row(m, group, split, modalities) for m, group in groups.items()]
  rows = _mark_best(_compare(rows, groups, run, split), groups, own)
  if info.get("missing"):
    over = missing_of(groups, run, passport(metric, own))
    chosen = {m: by_units(group, chosen_score) for m, group in groups.items()}
    rows = [r._replace(missing=over[r.method], validation=chosen[r.method]) for r in rows]
  known = scores_of(lines := list(lines), split)
  rows = [_against_linear(r, groups[r.method], split, known.get(LINEAR, {})) for r in rows]
  absent, said = reasons(lines, known)
  constant = estimate([*known.pop(CONSTANT, {}).values()])
  if majority is None and constant is not None:
    majority = constant.mean
  return Summary(
    rows=tuple(rows),
    metric=metric,
    split=split,
    modalities=modalities,
    baselines=run,
    unit=unit,
    units=len({r[unit] for r in records}),
    seeds=len({r["seed"] for r in records}),
    unavailable={m: why for m, why in unavailable.items() if m not in groups} | absent,
    majority=None if majority is None or not np.isfinite(majority) else float(majority),
    info=dict(info),
    fingerprint=fingerprint,
    versions=dict(next((r["versions"] for r in records if r.get("versions")), {})),
    notes=(*_notes(rows, groups, baselines, unavailable, split), *said),
    lines=tuple(bare(**fields(name, lines, known)) for name in known),
    own=own,
    constant=constant_scores(lines, split),
  )


def as_summary(results: Any) -> Summary:
  """A `Summary` as it is; {name: result with `.records(name)`} summarised; else a TypeError."""
  if isinstance(results, Summary):
    return results
  if isinstance(results, Mapping) and all(hasattr(r, "records") for r in results.values()):
    return summarise([x for name, result in results.items() for x in result.records(name)])
  raise TypeError(
    f"expected a report.Summary or {{name: result of train.fit}}, got {type(results).__name__}"
  )
