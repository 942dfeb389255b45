"""`compare`: data in, one honest table out.

Trains everything, writes every choice, then opens the test rows.
"""

import dataclasses
import datetime
import json
import pathlib
import statistics
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

from mmfuse import data, report, tasks, train
from mmfuse.core import Unavailable
from mmfuse.protocol import _baselines, _finish, _missing, _resume
from mmfuse.protocol._config import Compare, own_sources, parse_pairs, split_words
from mmfuse.protocol._progress import Progress, duration
from mmfuse.protocol._rows import (
  Row,
  alias_notes,
  available,
  checked_model,
  encoder_choices,
  make_rows,
  method_words,
  present,
  said_of_encoders,
  try_settings,
)
from mmfuse.protocol._search import Diverged, Search
from mmfuse.protocol._store import FORMAT, ForeignFile, Store, read_json, versions, write_json
from mmfuse.report._format import plural

SMOKE_ROWS = 96
REASON = 500  # characters of a failed row's reason beside the row
TIMING_SECONDS = 15.0
TIMED_TOGETHER = 12  # rows, beside `joint`: their programs and states are in memory at a time
COST = {"aggregator": 1.8, "weighting": 1.1, "modulator": 1.1, "schedule": 1.3}  # over a plain step


def load_table(cfg: Compare) -> data.Table:
  """The table a comparison is about; a smoke run takes a twin with few rows and random content."""
  options: dict[str, Any] = {} if cfg.train_size is None else {"train_size": cfg.train_size}
  built_in = data.DATASETS.get(cfg.data)
  if cfg.smoke and built_in is not None and "fake" in built_in.options:
    options = {"fake": True}  # its files are the user's to bring; a smoke run needs none
  table = data.load(
    cfg.data,
    task=cfg.task,
    encoders=encoder_choices(cfg),
    modalities=split_words(cfg.modalities) if cfg.modalities else None,
    ignore=split_words(cfg.ignore) if cfg.ignore else None,
    drop_empty=cfg.drop_empty,
    data_dir=cfg.data_dir,
    **options,
  )
  if not cfg.smoke:
    return table
  few = data.fake(table, rows=max(SMOKE_ROWS, 8 * table.num_outputs))
  return dataclasses.replace(few, name=table.name)


def smoke_of(cfg: Compare) -> Compare:
  """A smoke run: one epoch, two seeds, no search."""
  if not cfg.smoke:
    return cfg
  return dataclasses.replace(
    cfg,
    epochs=1,
    seeds=min(cfg.seeds, 2),
    tune=1,
    rates=(),
    batch_size=min(cfg.batch_size or 16, 16),
    folds=None if cfg.folds is None else 3,
  )


def budgeted(cfg: Compare, rows: int) -> tuple[Compare, list[str]]:
  """The configuration with batch and epochs filled in for `rows` training rows, and notes on them."""
  found = train.budget(rows, cfg.batch_size, cfg.epochs)
  said = (
    f"{plural(found.epochs, 'epoch')} of {plural(found.epoch_steps, 'step')} "
    f"({found.batch_size} rows each): {plural(found.steps, 'step')} a run"
  )
  notes = [said] if None in (cfg.batch_size, cfg.epochs) else []
  if found.epoch_steps < train.FEW_STEPS:
    notes = [f"{said}; an epoch of {rows} training rows has fewer than {train.FEW_STEPS} steps"]
  elif found.steps < train.LEAST_STEPS:
    notes = [f"{said}, fewer than the {train.LEAST_STEPS} of the default"]
  return dataclasses.replace(cfg, batch_size=found.batch_size, epochs=found.epochs), notes


def run(cfg: Compare, command: str = "") -> report.Summary:
  """The whole comparison; see `Compare`.

  Returns:
    The summary that the table shows; `info["interrupted"]` says whether Ctrl-C ended it early.
    Files: `run.json`, `results.jsonl`, `baselines.json`, `table.md`, `table.csv`, `curves.png`,
    `modalities.png`, `index.html`, `runs/`.

  Raises:
    UsageError, data.DataError: bad input, before anything is written.
    KeyboardInterrupt: Ctrl-C before the first row was complete.
  """
  cfg.check()
  cfg = smoke_of(cfg)
  table = load_table(cfg)
  cfg = _missing.configured(cfg, table.modalities, table.task)
  folds = [None] if cfg.folds is None else list(range(cfg.folds))
  options: dict[str, Any] = {
    "class_weights": cfg.class_weights,
    "weighted_scores": cfg.weighted_scores,
    "allow_straddling": cfg.allow_straddling,
    "scale": parse_pairs(cfg.scale, "--scale"),
  }
  splits = {fold: _missing.split(cfg, table, fold, **options) for fold in folds}
  cfg, spoken = budgeted(cfg, min(len(s.train.index) for s in splits.values()))
  out = cfg.out or f"results/{table.name}"
  asked, spoken = cfg, [*spoken, *alias_notes(cfg)]
  cfg, left_out = _resume.with_earlier(cfg, pathlib.Path(out))
  rows, unavailable = make_rows(cfg, table.modalities, table.task)
  rows = present(rows, splits, unavailable)
  if cfg.select is not None:
    scores = sorted(s.name for s in tasks.metric(table.task, table.num_outputs).scores)
    _missing.check_select(cfg.select, table.modalities, scores, table.task)
  model = checked_model(splits[folds[0]], cfg.fusion, table.task)
  chosen, remarks = said_of_encoders(splits[folds[0]], model)
  spoken += ["encoders: " + "; ".join(f"{m} {said}" for m, said in chosen.items()), *remarks]
  try_settings(cfg, rows, model)
  rows = available(cfg, rows, model, unavailable)
  named = _resume.named_rows(asked, table.modalities, table.task)
  unavailable = {name: why for name, why in unavailable.items() if name in named}
  tables = _missing.tables_of(cfg, splits)
  with Store.open(out, cfg.resume, elsewhere=cfg.out is None) as store:
    info = {**_info(asked, table, command), "encoders": chosen}
    info = store.start({**info, **_missing.described(cfg, table.modalities, tables)}, cfg.resume)
    _missing.save(store.folder, tables)
    return _run(cfg, store, info, splits, rows, named, unavailable, [*spoken, *left_out])


def _run(
  cfg: Compare,
  store: Store,
  info: dict,
  splits: dict[Any, data.Splits],
  rows: list[Row],
  named: set[str],
  unavailable: dict[str, str],
  notes: list[str],
) -> report.Summary:
  """The comparison in a folder of its own; rows that are not `named` are only shown."""
  folds = list(splits)
  train.enable_compilation_cache()
  made, everything = versions(), rows
  rows = [row for row in rows if row.name in named]
  progress = Progress(len(rows), 0, cfg.sizes[0])
  searches = {
    fold: Search(cfg, store, s.sealed(), fold, progress.epoch, made) for fold, s in splits.items()
  }
  earlier, more = _earlier_rows(everything, named, searches)
  info["notes"] = [*_split_notes(splits), *notes, *more]
  for note in info["notes"]:
    print(f"note: {note}")
  for name, why in unavailable.items():
    print(f"{name}: n/a: {why}")
  for fold, s in splits.items():
    _finish.save_schema(store.folder, s, fold)
  left = remaining(cfg, rows, searches)
  progress.runs = max(1, sum(left.values()))
  print(_estimate(cfg, rows, searches[folds[0]], left))
  lines = _fit_lines(store, searches)
  done, interrupted = _train_rows(rows, searches, unavailable, progress)
  complete = "row is" if len(rows) == 1 else "rows are"
  partial = f"interrupted: {len(done)} of {len(rows)} {complete} complete; --resume goes on"
  done = {row: {**earlier, **done}[row] for row in everything if row in done or row in earlier}
  if interrupted and not done and not unavailable:
    raise KeyboardInterrupt("before the first row was complete; --resume goes on")
  summary = _report(
    cfg, info, store, searches, splits, lines, done, unavailable, partial if interrupted else ""
  )
  if interrupted:
    print(partial)
  return summary


def _split_notes(splits: Mapping[Any, data.Splits]) -> list[str]:
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


def _earlier_rows(
  rows: list[Row], named: set[str], searches: Mapping[Any, Search]
) -> tuple[dict[Row, dict], list[str]]:
  """-> ({row: {fold: choice}} of complete rows that are not named, notes on them); checks all files."""
  for search in searches.values():
    for row in rows:
      search.check(row)
  others = {row: _resume.finished(row, searches) for row in rows if row.name not in named}
  kept = {row: choices for row, choices in others.items() if choices is not None}
  missing = [row.name for row, choices in others.items() if choices is None]
  return kept, _resume.note([row.name for row in kept], missing)


def _info(cfg: Compare, table: data.Table, command: str) -> dict[str, Any]:
  """What `run.json` holds."""
  return {
    "format": FORMAT,
    "config": json.loads(json.dumps(cfg.numeric())),  # as it will be read back
    "methods": method_words(cfg),
    "sources": own_sources(cfg),
    "data_fingerprint": table.fingerprint,
    "versions": versions(),
    "command": command,
    "date": datetime.date.today().isoformat(),
    "data": cfg.data,
    "name": table.name,
  }


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


def _estimate(cfg: Compare, rows: list[Row], search: Search, left: Mapping[str, int]) -> str:
  """A sentence; two epochs of one row are timed, whose programs are needed anyway.

  A search that ends at an edge of the rates goes on beyond it, so that there may be more runs.
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


def _train_rows(
  rows: list[Row], searches: Mapping[Any, Search], unavailable: dict[str, str], progress: Progress
) -> tuple[dict[Row, dict], bool]:
  """-> ({row: {fold: choice}} of complete rows, interrupted). Reasons go to `unavailable`."""
  done: dict[Row, dict] = {}
  folder = next(iter(searches.values())).store.folder
  with progress:
    for row in rows:
      train.release_programs()  # between rows no thread trains
      try:
        done[row] = {fold: search.choose(row) for fold, search in searches.items()}
        progress.row_done(row)
      except KeyboardInterrupt:
        return done, True
      except ForeignFile:
        raise
      except (Diverged, Unavailable) as error:
        unavailable[row.name] = str(error)
        progress.row_done(row, f"n/a: {error}")
      except Exception as error:  # a row never takes the run down
        unavailable[row.name] = _failure(folder, row, error)
        progress.row_done(row, "failed")
  return done, False


def _fit_lines(store: Store, searches: Mapping[Any, Search]) -> dict[Any, list[_baselines.Line]]:
  """The linear baselines of every split, without test rows; {} where a report has their scores."""
  if _baselines.kept(store.folder) is not None:
    return {}
  began = time.perf_counter()
  failed = lambda line, error: _failure(store.folder, line, error)
  found = {fold: _baselines.fit_lines(s.splits, failed) for fold, s in searches.items()}
  first = next(iter(searches))
  if found[first]:
    print(_baselines.said(found[first], searches[first].splits.task, began))
  return found


def _failure(folder: pathlib.Path, row: Row | _baselines.Line, error: Exception) -> str:
  """The reason beside the row, on one line; errors.log has all of it, and the traceback."""
  reason = " ".join(str(error).split())
  if len(reason) > REASON:
    reason = f"{reason[:REASON].rsplit(' ', 1)[0]} ... (all of it is in errors.log)"
  reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
  log = folder / "errors.log"
  with log.open("a") as file:
    file.write(f"--- {row.name}\n{''.join(traceback.format_exception(error))}\n")
  print(f"{row.name} failed ({reason}); see {log}", file=sys.stderr)
  return f"failed: {reason}"


def _relative_times(search: Search, done: Mapping[Row, dict]) -> dict[str, float]:
  """Step time over that of `joint`, medians of interleaved epochs; {} without `joint`.

  Rows are timed some at a time, each time against `joint` in the same rounds. Kept in
  step_times.json: a report that is only written again measures nothing.
  """
  names = [row.name for row in done]
  if "joint" not in names:
    return {}
  path = search.store.folder / "step_times.json"
  kept = read_json(path) if path.is_file() else {}
  if set(names) <= set(kept):
    return {name: kept[name] for name in names}
  built = {
    row.name: search.method(row, search.chosen(choices[search.fold]))
    for row, choices in done.items()
  }
  others = [name for name in names if name != "joint"]
  ratio: dict[str, float] = {}
  for start in range(0, max(1, len(others)), TIMED_TOGETHER):
    train.release_programs()
    racing = ("joint", *others[start : start + TIMED_TOGETHER])
    times = train.interleaved_step_times(
      {name: built[name] for name in racing},
      search.splits,
      batch_size=search.cfg.sizes[1],
      budget=TIMING_SECONDS,
    )
    ratio |= {
      name: statistics.median(t / j for t, j in zip(laps, times["joint"]))
      for name, laps in times.items()
    }
  write_json(path, ratio)
  return ratio


def _report(
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
  """Opens the test rows of the rows whose choices are written; writes everything a reader sees."""
  first = next(iter(searches.values()))
  relative: dict[str, float] = {}
  if not interrupted:
    try:
      relative = _relative_times(first, done)
    except KeyboardInterrupt:  # the rows are complete, and only this is not known of them
      interrupted = "interrupted: step times were not measured; --resume goes on"
  records = []
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
        for record in _finish.records_of(
          searches[fold], row, choice, splits[fold].test, shared, tables[fold]
        )
      ]
    except ForeignFile:
      raise
    except Exception as error:  # as in training
      unavailable[row.name] = _failure(store.folder, row, error)
      del done[row]
  report.write_jsonl(records, store.folder / "results.jsonl")
  kept = _baselines.kept(store.folder) or []
  baselines = _baselines.write_entries(store.folder, lines, splits) if lines else kept
  split = splits[first.fold]
  summary = report.summarise(
    records,
    unavailable=unavailable,
    lines=baselines,
    info={
      "name": info["name"],
      "folder": str(store.folder),
      "task": split.task,
      "date": info["date"],
      "command": info["command"],
      "sizes": {part: len(getattr(split, part).index) for part in ("train", "validation", "test")},
      "varies": _varies(cfg),
      "one_rate": cfg.tune == 1,
      **_missing.said(cfg),
      "interrupted": bool(interrupted),
      "notes": [
        *info["notes"],
        *_baselines.notes(baselines),
        *_readers(done),
        *([interrupted] if interrupted else []),
      ],
    },
  )
  curves = _finish.histories(first, [(r, first.chosen(c[first.fold])) for r, c in done.items()])
  _finish.write_report(store.folder, summary, curves)
  return summary


def _readers(done: Mapping[Row, dict]) -> list[str]:
  """A note on rows whose validation score says less than that of the others."""
  names = [row.name for row in done if row.entry.reads_validation]
  if not names:
    return []
  return [
    f"validation rows also steer the training of {', '.join(names)}: their column flatters them"
  ]


def _varies(cfg: Compare) -> str:
  if cfg.folds is None:
    return f"{plural(cfg.seeds, 'seed')} of one split (initialisation and batch order)"
  seeds = plural(cfg.seeds, "seed")
  return f"{plural(cfg.folds, 'fold')} x {seeds} (test rows, initialisation and batch order)"
