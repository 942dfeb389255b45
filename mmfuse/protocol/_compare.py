"""`compare`: data in, one honest table out. Trains everything, writes every choice, then opens the test rows."""

import dataclasses
import datetime
import pathlib
import statistics
import sys
import time
import traceback
from typing import Any

from mmfuse import data, metrics, report, train
from mmfuse.protocol import _finish
from mmfuse.protocol._config import Compare, UsageError
from mmfuse.protocol._progress import Progress
from mmfuse.protocol._rows import Row, encoder_choices, make_rows
from mmfuse.protocol._search import Diverged, Search
from mmfuse.protocol._store import FORMAT, Store, versions

SMOKE_ROWS = 96


def load_table(cfg: Compare) -> data.Table:
  """The table a comparison is about; a smoke run takes a twin with few rows and random content."""
  options: dict[str, Any] = {} if cfg.train_size is None else {"train_size": cfg.train_size}
  if cfg.smoke and cfg.data == "av_mnist":
    options = {"fake": True}  # its files are the user's to bring; a smoke run needs none
  table = data.load(cfg.data, task=cfg.task, encoders=encoder_choices(cfg), drop_empty=cfg.drop_empty,
                    data_dir=cfg.data_dir, **options)
  if not cfg.smoke:
    return table
  few = data.fake(table, rows=max(SMOKE_ROWS, 8 * table.num_outputs))
  return dataclasses.replace(few, name=table.name)


def smoke_of(cfg: Compare) -> Compare:
  """A smoke run: one epoch, two seeds, no search."""
  return dataclasses.replace(cfg, epochs=1, seeds=min(cfg.seeds, 2), tune=1, batch_size=min(cfg.batch_size, 16),
                             folds=None if cfg.folds is None else 3) if cfg.smoke else cfg


def run(cfg: Compare, command: str = "") -> report.Summary:
  """The whole comparison; see `Compare`.

  Returns:
    The summary that the table shows. Files: `run.json`, `results.jsonl`, `table.md`, `table.csv`,
    `curves.png`, `modalities.png`, `index.html`, `runs/`.

  Raises:
    UsageError, data.DataError: bad input, before anything is written.
  """
  cfg.check()
  cfg = smoke_of(cfg)
  table = load_table(cfg)
  folds = [None] if cfg.folds is None else list(range(cfg.folds))
  splits = {fold: table.splits(fold=fold, folds=cfg.folds) for fold in folds}
  rows, unavailable = make_rows(cfg, table.modalities, table.task)
  if cfg.select is not None:
    _check_select(cfg.select, table)
  store = Store.open(cfg.out or f"results/{table.name}", cfg.resume)
  train.enable_compilation_cache()
  info = store.start({
      "format": FORMAT, "config": _plain(cfg), "data_fingerprint": table.fingerprint, "versions": versions(),
      "command": command, "date": datetime.date.today().isoformat(), "data": cfg.data,
      "name": table.name}, cfg.resume)
  for note in splits[folds[0]].notes:
    print(f"note: {note}")
  progress = Progress(total=len(rows) * len(folds) * _runs_per_row(rows, cfg), epochs=cfg.epochs)
  searches = {fold: Search(cfg, store, s.without_test(), fold, progress.epoch) for fold, s in splits.items()}
  for fold, s in splits.items():
    _finish.save_schema(store.folder, s, fold)
  print(_estimate(cfg, rows, searches[folds[0]], len(folds)))
  done, interrupted = _train_rows(rows, searches, unavailable, progress)
  summary = _report(cfg, info, store, searches, splits, done, unavailable, interrupted)
  if interrupted:
    print(f"interrupted: {len(done)} of {len(rows)} rows are complete; --resume goes on")
  return summary


def _plain(cfg: Compare) -> dict:
  import json

  return json.loads(json.dumps(cfg.numeric()))


def _check_select(select: str, table: data.Table) -> None:
  known = metrics.for_task(table.task, table.num_outputs)
  names = sorted(known.compute(known.init()))
  if select not in names:
    raise UsageError(f"--select has no metric {select!r} for {table.task}; available: {', '.join(names)}")


def _runs_per_row(rows: list[Row], cfg: Compare) -> int:
  trials = max((len(r.trials(cfg)) for r in rows), default=0)
  return trials * min(2, cfg.seeds) + max(0, cfg.seeds - 2)


def _estimate(cfg: Compare, rows: list[Row], search: Search, folds: int) -> str:
  """A sentence; two epochs of the first row are timed, whose programs are needed anyway."""
  if not rows:
    return "nothing to train"
  began = time.perf_counter()
  row = rows[min(1, len(rows) - 1)]
  result = train.fit(search.method(row, row.trials(cfg)[0]), search.splits, epochs=2, batch_size=cfg.batch_size,
                     select=cfg.select)
  step = result.logs[0].history[-1]["seconds_per_step"]
  steps = max(1, len(search.splits.train.index) // cfg.batch_size)
  compiling = max(0.0, time.perf_counter() - began - 2 * step * steps)
  cost = {"aggregator": 1.8, "weighting": 1.1, "modulator": 1.1}
  epochs = sum(cost.get(r.entry.kind, 1.0) for r in rows) * _runs_per_row(rows, cfg) * folds * cfg.epochs
  seconds = epochs * step * steps * 1.2 + len(rows) * folds * compiling * 1.3
  return (f"{len(rows)} rows x {_runs_per_row(rows, cfg)} runs x {folds} split(s), {cfg.epochs} epochs each: "
          f"about {_minutes(seconds)}")


def _minutes(seconds: float) -> str:
  return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _train_rows(rows, searches, unavailable, progress) -> tuple[dict[Row, dict], bool]:
  """-> ({row: {fold: choice}} of complete rows, interrupted). Reasons go to `unavailable`."""
  done: dict[str, dict] = {}
  with progress:
    for row in rows:
      try:
        done[row.name] = {fold: search.choose(row) for fold, search in searches.items()}
      except KeyboardInterrupt:
        return {r: done[r.name] for r in rows if r.name in done}, True
      except Diverged as error:
        unavailable[row.name] = str(error)
      except Exception as error:  # a row never takes the run down; the traceback is kept beside the table
        unavailable[row.name] = f"failed: {type(error).__name__}: {_first_line(error)}"
        log = next(iter(searches.values())).store.folder / "errors.log"
        with log.open("a") as file:
          file.write(f"--- {row.name}\n{traceback.format_exc()}\n")
        print(f"{row.name} failed ({type(error).__name__}: {_first_line(error)}); see {log}", file=sys.stderr)
      progress.row_done(row)
  return {r: done[r.name] for r in rows if r.name in done}, False


def _first_line(error: BaseException) -> str:
  return (str(error).strip().splitlines() or [""])[0][:160]


def _relative_times(cfg: Compare, search: Search, done: dict) -> dict[str, float]:
  """Step time over that of `joint`, medians of interleaved epochs; {} without `joint`."""
  built = {row.name: search.method(row, search.chosen(next(iter(choices.values()))))
           for row, choices in done.items()}
  if "joint" not in built:
    return {}
  times = train.interleaved_step_times(built, search.splits, batch_size=cfg.batch_size, budget=30.0)
  return {name: statistics.median(t / j for t, j in zip(laps, times["joint"])) for name, laps in times.items()}


def _report(cfg, info, store, searches, splits, done, unavailable, interrupted) -> report.Summary:
  """Opens the test rows, once, for the rows whose choices are written; writes everything a reader sees."""
  first = next(iter(searches.values()))
  shared = {
      "relative": _relative_times(cfg, first, done) if done and not interrupted else {},
      "evaluations": {row.name: sum(_finish.evaluations(s, row) for s in searches.values()) for row in done},
      "versions": info["versions"],
  }
  records = [record for row, choices in done.items() for fold, choice in choices.items()
             for record in _finish.records_of(searches[fold], row, choice, splits[fold].test, shared)]
  if not records and not unavailable:
    raise UsageError("stopped before the first row was complete; --resume goes on")
  report.write_jsonl(records, store.folder / "results.jsonl")
  split = next(iter(splits.values()))
  majority = statistics.mean(_finish.majority_score(s) for s in splits.values())
  summary = report.summarise(records, unavailable=unavailable, majority=majority, info={
      "name": info["name"], "task": split.task, "date": info["date"], "command": info["command"],
      "sizes": {part: len(getattr(split, part).index) for part in ("train", "validation", "test")},
      "varies": _varies(cfg), "one_rate": cfg.tune == 1, "notes": list(split.notes)})
  curves = _finish.histories(first, [(row, first.chosen(c[first.fold])) for row, c in done.items()])
  _finish.write_report(store.folder, summary, curves)
  return summary


def _varies(cfg: Compare) -> str:
  if cfg.folds is None:
    return f"{cfg.seeds} seeds of one split (initialisation and batch order)"
  return f"{cfg.folds} folds x {cfg.seeds} seeds (test rows, initialisation and batch order)"


def output_folder(cfg: Compare) -> pathlib.Path:
  """Where the run of a configuration lies."""
  name = pathlib.Path(cfg.data).stem if cfg.data.endswith(".npz") else cfg.data
  return pathlib.Path(cfg.out or f"results/{name}")
