"""Records, chance and curves of a task that is judged by whole parts: retrieval."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse import data, metrics, report, tasks, train
from mmfuse.metrics import Score
from mmfuse.protocol import _finish
from mmfuse.protocol._rows import Row
from mmfuse.protocol._search import Search
from mmfuse.report._format import plural
from mmfuse.train import by_heads, part_of, validation_scores
from mmfuse.tree import FUSED


def collected_of(task: str) -> metrics.Collected | None:
  """What a task is judged by instead of batches; None of most."""
  return tasks.get(task).collected


def parts_of(splits: data.Splits) -> dict[str, Any]:
  """{"query", "database": the parts that a report reads}."""
  return {r: part_of(splits, r, selecting=False) for r in metrics.map_at_k().reads}


def records_of(
  search: Search, row: Row, choice: dict, splits: data.Splits, shared: Mapping[str, Any]
) -> list[dict]:
  """One record per seed of a row on one split; opens what the report reads.

  "fused" is the mean over the directions, which stand beside it where other tasks have modalities;
  "scores" has the other scores, "map_at_all/a->b" for one direction.

  Args:
    search: of the split, where the runs are.
    row: the method.
    choice: of the row on this split, as its file says.
    splits: with the parts of the report.
    shared: {field: value} that all records of the row have.
  """
  trial, task = search.chosen(choice), tasks.get(search.splits.task)
  method, collected = search.method(row, trial), task.collected
  assert collected is not None
  template, name = search.template(method), task.primary
  out = []
  for seed in search.seeds:
    saved = search.saved(row, seed, trial)
    log = train.RunLog.from_json(saved["log"])
    found: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    if log.selected_epoch >= 0:
      state = search.load_weights(row, seed, trial, template)
      found, curves = train.collect_curves(method, state, splits, collected)
    heads = by_heads(found)
    names = tuple(h for h in heads if h != FUSED)
    out.append(
      {
        **_finish.of_run(search, row, choice, seed, log, template),
        "validation": validation_scores(log, name, _directions(log)),
        "test": {FUSED: None, **{h: heads[h][name] for h in (FUSED, *names) if h in heads}},
        "scores": {
          "test": {k: v for k, v in found.items() if not k.startswith(f"{name}/")},
          "validation": _finish.further_validation(log),
        },
        "precision_recall": curves,
        **shared,
        "versions": saved["versions"],
      }
    )
  return out


def _directions(log: train.RunLog) -> tuple[str, ...]:
  entry = log.selected
  heads = {} if entry is None else entry["validation"] or {}
  return tuple(h for h in heads if h != FUSED)


def chance(splits: data.Splits, *, selecting: bool) -> dict[str, float | None]:
  """{score: value} of an answer at random; {} where the task has none."""
  collected = collected_of(splits.task)
  if collected is None or collected.chance is None:
    return {}
  parts = {r: part_of(splits, r, selecting=selecting) for r in collected.reads}
  found = collected.chance(parts)
  return {k: float(v) if np.isfinite(v) else None for k, v in found.items()}


def passports(splits: data.Splits) -> tuple[Score, ...]:
  """Those of a task's scores, of each direction too."""
  scores = tasks.metric_of(splits).scores
  if collected_of(splits.task) is None:
    return scores
  names = [d.name for d in metrics.directions(parts_of(splits))]
  each = [s._replace(name=f"{s.name}/{d}", words=f"{s.words} {d}") for s in scores for d in names]
  return (*scores, *each)


def notes(splits: data.Splits) -> list[str]:
  """How the rankings were judged, with every number that changes them."""
  if collected_of(splits.task) is None:
    return []
  parts = parts_of(splits)
  found = metrics.directions(parts)
  counted = []
  for d in found:
    sizes = {r: len(rows) for r, rows in d.rows.items()}
    labels = [np.asarray(parts[r].label)[d.rows[r]] for r in d.rows]
    nothing = int((metrics.relevant_rows(*labels) == 0).sum())
    said = f", {plural(nothing, 'query').replace('querys', 'queries')} without a relevant row"
    counted.append(f"{d.name} {sizes['query']:,} in {sizes['database']:,}{said if nothing else ''}")
  first = tasks.get(splits.task).primary.rpartition("_")[2]
  return [
    "a->b: queries of modality a, ranked database rows of modality b; codes by Hamming distance, "
    "features by cosine, ties by database index; relevant: "
    + ("a label in common." if np.ndim(parts["query"].label) == 2 else "the same class."),
    f"mAP@{first}: average precision over the first {first} ranks, divided by the number of relevant "
    "rows among them; mAP@all: over the whole database. A query without a relevant row counts 0.",
    f"queries in database rows: {'; '.join(counted)}.",
  ]


def recall_curves(
  summary: report.Summary, records: list[dict], splits: data.Splits
) -> report.RecallCurves | None:
  """Precision over recall of each row and direction, mean over its runs; None of another task."""
  if collected_of(splits.task) is None:
    return None
  parts = parts_of(splits)
  base = {}
  for d in metrics.directions(parts):
    labels = [np.asarray(parts[r].label)[d.rows[r]] for r in d.rows]
    base[d.name] = float(metrics.relevant_rows(*labels).mean() / len(labels[1]))
  rows: dict[str, dict[str, np.ndarray]] = {}
  for row in summary.rows:
    mine = [r["precision_recall"] for r in records if r["method"] == row.method]
    names = dict.fromkeys(d for curves in mine for d in curves)
    rows[row.method] = {d: np.mean([c[d] for c in mine if d in c], 0) for d in names}
  return report.RecallCurves(metrics.RECALL, rows, base)
