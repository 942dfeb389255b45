"""From complete rows to what a reader sees: the test rows are opened here."""

from collections.abc import Mapping
from typing import Any

from mmfuse import data, methods, metrics, report, train
from mmfuse.names import GENERATION, SEGMENTATION
from mmfuse.protocol import (
  _baselines,
  _beyond,
  _finish,
  _generation,
  _maps,
  _missing,
  _notes,
  _ranked,
  _weak,
)
from mmfuse.protocol._config import Compare
from mmfuse.protocol._rows import Row
from mmfuse.protocol._search import Search
from mmfuse.protocol._step_times import relative_times
from mmfuse.protocol._store import ForeignFile, Store
from mmfuse.protocol._trained import failure


def write(
  cfg: Compare,
  info: dict,
  store: Store,
  searches: Mapping[Any, Search],
  splits: Mapping[Any, data.Splits],
  lines: Mapping[Any, list[_baselines.Line]],
  done: dict[Row, dict],
  unavailable: dict[str, str],
  interrupted: str,
) -> report.Summary:
  """Opens the test rows of the rows whose choices are written; writes everything a reader sees.

  Args:
    cfg: the configuration, filled in.
    info: what run.json holds, and `notes`.
    store: the output folder.
    searches: {fold: search}, which holds no test row.
    splits: {fold: splits}, which do.
    lines: {fold: linear baselines}, {} where an earlier report has scored them.
    done: {row: {fold: choice}}; a row that cannot be judged leaves it.
    unavailable: {row: why it is not in the table}, where the reasons of those go.
    interrupted: what is said of an end before the last row, "" of a whole comparison.
  """
  first = next(iter(searches.values()))
  relative: dict[str, float] = {}
  if not interrupted:
    try:
      relative = relative_times(first, done)
    except KeyboardInterrupt:  # the rows are complete, and only this is not known of them
      interrupted = "interrupted: step times were not measured; --resume goes on"
  records = _records(cfg, store, searches, splits, done, unavailable, relative)
  report.write_jsonl(records, store.folder / "results.jsonl")
  kept = _baselines.kept(store.folder) or []
  baselines = _baselines.write_entries(store.folder, lines, splits) if lines else kept
  split = splits[first.fold]
  summary = report.summarise(
    records,
    baselines=methods.BASELINES_OF.get(split.task, report.DEFAULT_BASELINES),
    unavailable=unavailable,
    lines=baselines,
    info={
      "name": info["name"],
      "folder": str(store.folder),
      "task": split.task,
      "date": info["date"],
      "command": info["command"],
      "sizes": {part: len(getattr(split, part).index) for part in ("train", "validation", "test")},
      "varies": _notes.varies(cfg),
      "one_rate": cfg.tune == 1,
      **_missing.said(cfg),
      "scores": metrics.described([*_ranked.passports(split), *_beside(split)]),
      **({"likelihood": _generation.said(cfg, split)} if split.task == GENERATION else {}),
      "interrupted": bool(interrupted),
      "notes": [
        *info["notes"],
        *_baselines.notes(baselines),
        *_notes.on_readers(done),
        *_ranked.notes(split),
        *_maps.notes(split, records),
        *_weak.notes(split, records),
        *([interrupted] if interrupted else []),
      ],
    },
  )
  curves = _finish.histories(first, [(r, first.chosen(c[first.fold])) for r, c in done.items()])
  recall = _ranked.recall_curves(summary, records, split)
  grids = _finish.grids(first, done, split)
  _finish.write_report(store.folder, summary, curves, recall, grids)
  return summary


def _beside(split: data.Splits) -> list[metrics.Score]:
  if split.task == SEGMENTATION:
    return list(metrics.SURFACE)
  if split.task == GENERATION:
    return _generation.passports(split.modalities)
  return _weak.passports(split.modalities) if _weak.has_masks(split) else []


def _records(
  cfg: Compare,
  store: Store,
  searches: Mapping[Any, Search],
  splits: Mapping[Any, data.Splits],
  done: dict[Row, dict],
  unavailable: dict[str, str],
  relative: Mapping[str, float],
) -> list[dict]:
  """The lines of results.jsonl; a row that cannot be judged leaves `done`, with its reason."""
  records: list[dict] = []
  tables = {fold: _missing.of_test(cfg, s, fold) for fold, s in splits.items()}
  for row, choices in list(done.items()):
    train.release_programs()
    shared = {
      "relative_step_time": relative.get(row.name),
      "gradient_evaluations": sum(_finish.evaluations(s, row) for s in searches.values()),
    }
    try:
      records += [
        record
        for fold, choice in choices.items()
        for record in _of_split(searches[fold], row, choice, splits[fold], shared, tables[fold])
      ]
    except ForeignFile:
      raise
    except Exception as error:  # as in training
      unavailable[row.name] = failure(store.folder, row, error)
      del done[row]
  return records


def _of_split(search: Search, row: Row, choice: dict, splits: data.Splits, shared, tables):
  """The records of a row on one split."""
  if _ranked.collected_of(splits.task) is not None:
    return _ranked.records_of(search, row, choice, splits, shared)
  records = _finish.records_of(search, row, choice, splits.test, shared, tables)
  return _beyond.with_parts(records, search, row, choice, splits)
