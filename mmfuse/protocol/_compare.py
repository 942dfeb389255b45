"""`compare`: data in, one honest table out.

Trains everything, writes every choice, then opens the test rows.
"""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mmfuse import data, metrics, report, tasks, train
from mmfuse.methods import Entry
from mmfuse.names import SEGMENTATION
from mmfuse.protocol import _finish, _missing, _notes, _report, _resume, _worth
from mmfuse.protocol._built import Built, defined
from mmfuse.protocol._config import Compare, parse_pairs
from mmfuse.protocol._doors import budgeted, load_table, smoke_of, with_own
from mmfuse.protocol._estimate import estimate, remaining
from mmfuse.protocol._generation import likelihoods_of
from mmfuse.protocol._model import checked_model, said_of_encoders
from mmfuse.protocol._own import Own
from mmfuse.protocol._progress import Progress
from mmfuse.protocol._rows import (
  Row,
  alias_notes,
  make_rows,
  method_words,
  optimiser_notes,
  present,
)
from mmfuse.protocol._search import Search
from mmfuse.protocol._store import FORMAT, Store, versions
from mmfuse.protocol._trained import earlier_rows, fit_lines, train_rows


class Prepared(NamedTuple):
  """A comparison before anything is written: whatever is bad input has been refused."""

  cfg: Compare  # filled in, and with the rows of an earlier run
  splits: dict[Any, data.Splits]  # {fold: splits}, fold None without folds
  built: Built  # the methods on the first split
  rows: list[Row]
  named: set[str]  # the rows that are asked for; others are only shown
  unavailable: dict[str, str]  # {row: why it cannot run}
  notes: list[str]
  out: str  # the folder
  info: dict[str, Any]  # run.json
  tables: Mapping[str, Mapping[str, Any]]  # of missing modalities


def run(
  cfg: Compare,
  *,
  command: str = "",
  table: data.Table | None = None,
  methods: Mapping[str, Callable[..., Any] | Entry] | None = None,
) -> report.Summary:
  """The whole comparison; see `Compare`.

  A row of your own is a builder called as `(model, learning_rate, **hyper)`, or a `methods.Entry`.
  `run.json` and the configuration of each run hold a digest of the file that its builder stands in,
  of the arguments of a `functools.partial` and of the entry's fields (what a closure holds is not
  seen): `--resume` refuses other code under the same name, and leaves out a row that is not given.

  Args:
    cfg: what is compared, and how.
    command: what is said to make this again; default "", nothing.
    table: a table to compare on instead of what `cfg.data` names; default None. What `cfg` says of
      task, encoders and modalities holds for it, and `run.json` has its name and fingerprint.
    methods: {name: builder or entry}, rows of your own; default none. They run where `cfg.methods`
      names them, the others last; `Compare(methods=())` are these alone. A name of the index that
      `cfg.methods` names stands for yours.

  Returns:
    The summary that the table shows; `info["interrupted"]` says whether Ctrl-C ended it early.
    Files: `run.json`, `results.jsonl`, `baselines.json`, `table.md`, `table.csv`, `curves.png`,
    `modalities.png`, `index.html`, `runs/`.

  Raises:
    UsageError, data.DataError: bad input, before anything is written.
    KeyboardInterrupt: Ctrl-C before the first row was complete.
  """
  cfg.check()
  found = _prepare(cfg, command, table, Own(methods))
  with Store.open(found.out, cfg.resume, elsewhere=cfg.out is None) as store:
    info = store.start(found.info, cfg.resume)
    _missing.save(store.folder, found.tables)
    return _run(found, store, info)


def _prepare(cfg: Compare, command: str, given: data.Table | None, own: Own) -> Prepared:
  cfg = with_own(smoke_of(cfg), own)
  table = load_table(cfg, given)
  if table.task == SEGMENTATION:  # read off the labels: what it brings is known from here on
    cfg = dataclasses.replace(cfg, task="segmentation")
  cfg = _missing.configured(cfg, table.modalities, table.task)
  splits = _splits(cfg, table)
  cfg, notes = budgeted(cfg, min(len(s.train.index) for s in splits.values()), table.task)
  out = cfg.out or f"results/{table.name}"
  asked = cfg
  cfg, left_out = _resume.with_earlier(cfg, pathlib.Path(out), own)
  rows, unavailable = make_rows(cfg, table.modalities, table.task, own)
  rows = present(rows, splits, unavailable)
  if cfg.select is not None:
    known = sorted(s.name for s in tasks.metric(table.task, table.num_outputs).scores)
    _missing.check_select(cfg.select, table.modalities, known, table.task)
  first = next(iter(splits.values()))
  likelihoods_of(cfg, first)  # one that does not fit is said before anything is built
  built = Built(cfg, checked_model(first, cfg.fusion, table.task))
  chosen, remarks = said_of_encoders(first, built.model)
  notes += [
    *alias_notes(asked),
    *optimiser_notes(asked, own),
    "encoders: " + "; ".join(f"{m} {said}" for m, said in chosen.items()),
    *remarks,
  ]
  rows = defined(built, rows, unavailable)
  named = _resume.named_rows(asked, table.modalities, table.task, own)
  unavailable = {name: why for name, why in unavailable.items() if name in named}
  tables = _missing.tables_of(cfg, splits)
  scores = metrics.described(tasks.metric_of(first).scores)
  info = {
    **_info(asked, table, command, own),
    "data": cfg.data if given is None else table.name,
    "encoders": chosen,
    **({"scores": scores} if scores else {}),
    **_missing.described(cfg, table.modalities, tables),
  }
  notes += left_out
  return Prepared(cfg, splits, built, rows, named, unavailable, notes, out, info, tables)


def _splits(cfg: Compare, table: data.Table) -> dict[Any, data.Splits]:
  """{fold: splits}, fold None without folds."""
  options: dict[str, Any] = {
    "class_weights": cfg.class_weights,
    "weighted_scores": cfg.weighted_scores,
    "allow_straddling": cfg.allow_straddling,
    "scale": parse_pairs(cfg.scale, "--scale"),
  }
  folds = [None] if cfg.folds is None else list(range(cfg.folds))
  return {fold: _missing.split(cfg, table, fold, **options) for fold in folds}


def _info(cfg: Compare, table: data.Table, command: str, own: Own) -> dict[str, Any]:
  """What `run.json` holds of the command and its data."""
  return {
    "format": FORMAT,
    "config": json.loads(json.dumps(cfg.numeric())),  # as it will be read back
    "methods": method_words(cfg),
    "sources": own.sources(cfg),
    "data_fingerprint": table.fingerprint,
    "versions": versions(),
    "command": command,
    "date": datetime.date.today().isoformat(),
    "name": table.name,
  }


def _run(found: Prepared, store: Store, info: dict) -> report.Summary:
  """The comparison in a folder of its own; rows that are not named are only shown."""
  cfg, splits, unavailable = found.cfg, found.splits, found.unavailable
  train.enable_compilation_cache()
  made, rows = versions(), [row for row in found.rows if row.name in found.named]
  progress = Progress(len(rows), 0, cfg.sizes[0])
  kept = {next(iter(splits)): found.built}
  searches = {
    fold: Search(cfg, store, s.sealed(), fold, progress.epoch, made, kept.get(fold))
    for fold, s in splits.items()
  }
  earlier, more = earlier_rows(found.rows, found.named, searches)
  partial_rows = _notes.on_complete_rows(rows, splits)
  noise = _worth.notes(rows, cfg, next(iter(splits.values())))
  info["notes"] = [*_notes.of_splits(splits), *found.notes, *partial_rows, *noise, *more]
  for note in info["notes"]:
    print(f"note: {note}")
  for name, why in unavailable.items():
    print(f"{name}: n/a: {why}")
  for fold, s in splits.items():
    _finish.save_schema(store.folder, s, fold)
  left = remaining(cfg, rows, searches)
  progress.runs = max(1, sum(left.values()))
  print(estimate(cfg, rows, next(iter(searches.values())), left))
  lines = fit_lines(store, searches)
  done, interrupted = train_rows(rows, searches, unavailable, progress)
  partial = ""
  if interrupted:
    complete = "row is" if len(rows) == 1 else "rows are"
    partial = f"interrupted: {len(done)} of {len(rows)} {complete} complete; --resume goes on"
  done = {row: {**earlier, **done}[row] for row in found.rows if row in done or row in earlier}
  if interrupted and not done and not unavailable:
    raise KeyboardInterrupt("before the first row was complete; --resume goes on")
  summary = _report.write(cfg, info, store, searches, splits, lines, done, unavailable, partial)
  if interrupted:
    print(partial)
  return summary
