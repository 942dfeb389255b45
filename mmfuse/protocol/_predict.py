"""`mmfuse predict RUN --data new.npz`: probabilities from a run's weights and standardisation."""

import csv
import dataclasses
import io
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmfuse import data, metrics, report, tasks, train
from mmfuse.core import Method, Outputs, State
from mmfuse.data._inputs import MASK
from mmfuse.data._sequences import LENGTH
from mmfuse.names import CLASSIFICATION, GENERATION, MULTILABEL, REGRESSION, RETRIEVAL, closest
from mmfuse.protocol._config import OUTSIDE_BRACKETS, Compare, UsageError, split_words
from mmfuse.protocol._model import encoder_choices, make_model
from mmfuse.protocol._new_rows import NewRows, read_rows, stand_in
from mmfuse.protocol._own import Own
from mmfuse.protocol._rows import Row, config_hash, make_rows
from mmfuse.protocol._search import Search
from mmfuse.protocol._store import FORMAT, ForeignFile, Store, read_json


def read_run(folder: pathlib.Path) -> tuple[dict, dict, list[dict]]:
  """-> (run.json, schema of the first split, records) of a finished run, or UsageError."""
  if not (folder / "run.json").is_file():
    raise UsageError(f"there is no run in {str(folder)!r} (no run.json)")
  if not (folder / "results.jsonl").is_file():
    raise UsageError(
      f"the run in {str(folder)!r} is not finished (no results.jsonl): "
      "mmfuse compare --resume goes on"
    )

  try:
    records = report.read_jsonl(folder / "results.jsonl")
  except ValueError as error:
    raise UsageError(str(error)) from error
  fold = records[0]["fold"] if records else None
  schema = read_json(folder / ("schema.json" if fold is None else f"schema-fold{fold}.json"))
  return read_json(folder / "run.json"), schema, records


def _mean_validation(records: list[dict], sign: int) -> float:
  """Of the row's own prediction; a run that diverged counts as the worst."""
  scores = [r["validation"]["fused"] for r in records]
  return float(np.mean([-sign * np.inf if s is None else s for s in scores]))


def _pick(
  records: list[dict],
  method: str | None,
  seed: int | None,
  without: Mapping[str, str] = {},
  own: Mapping[str, metrics.Score] = {},
) -> tuple[dict, str]:
  """-> (the record asked for, why that one).

  By default the row that the table marks: the best fused one by validation (of all rows where none
  is fused), and its first seed.

  Args:
    records: of the run.
    method: the row asked for, None for the default.
    seed: the seed asked for, None for the default.
    without: {row: why it cannot be taken, a clause}; such a row is refused where it is asked for.
    own: {name: passport} of scores that are none of ours.
  """
  names = list(dict.fromkeys(r["method"] for r in records))
  if not names:
    raise UsageError("the run has no trained row")
  if method is not None and method not in names:
    raise UsageError(f"the run has no method {method!r}; {closest(method, names)}")
  able = [n for n in names if n not in without]
  if method in without or not able:
    name = method or names[0]
    raise UsageError(
      f"{name} {without[name]}; "
      + (f"--method takes {', '.join(able)} instead" if able else "no row of the run can")
    )
  metric = records[0]["metric"]
  sign = own.get(metric, metrics.score(metric)).sign
  means = {n: _mean_validation([r for r in records if r["method"] == n], sign) for n in able}
  why = "as asked"
  if method is None:
    marked = report.best_fused((r for r in records if r["method"] in able), own)
    method = max(able, key=lambda n: sign * means[n]) if marked is None else marked
    kind = "row" if marked is None else "fused row"
    why = f"the best {kind} by validation, {metric} {means[method]:.3g}"
    if len(able) < len(names):
      why += ", of those that can be taken"
  mine = [r for r in records if r["method"] == method and r["fold"] == records[0]["fold"]]
  seeds = [r["seed"] for r in mine]
  seed = seeds[0] if seed is None else seed
  if seed not in seeds:
    raise UsageError(f"--seed {seed} was not run; available: {', '.join(map(str, seeds))}")
  return mine[seeds.index(seed)], why


def _rows(cfg: Compare, schema: dict, own: Own, gone: list[str]) -> dict[str, Row]:
  """{name: row} of the run, without the methods `gone` and what `--set` says of them."""
  methods = tuple(w for w in split_words(cfg.methods) if w not in gone)
  settings = split_words(cfg.set, OUTSIDE_BRACKETS)
  left = tuple(w for w in settings if w.partition(".")[0] not in gone)
  if not methods:
    return {}
  cfg = dataclasses.replace(cfg, methods=methods, set=left)
  return {r.name: r for r in make_rows(cfg, sorted(schema["inputs"]), schema["task"], own)[0]}


def _without(
  records: list[dict], rows: Mapping[str, Row], absent: list[str], gone: list[str]
) -> dict[str, str]:
  """{row: why it cannot be taken}: it reads an absent modality alone, or nobody gives its builder."""
  alone = {name: row.fixed.get("modality") for name, row in rows.items()}
  found = {
    name: f"reads {m!r} alone, which is not among the arrays"
    for name, m in alone.items()
    if m is not None and m in absent
  }
  names = dict.fromkeys(r["method"] for r in records)
  why = "came from Python, and its builder is not given (methods=)"
  found |= {n: why for n in names if n.split("/")[0] in gone}
  merged = "is another name of a row by now, its weights are those of the version that made the run"
  return found | {n: merged for n in names if n not in rows and n not in found}


def _check_run(info: dict, schema: dict, cfg: Compare) -> None:
  """Raises UsageError for a schema of other data, or encoders that were edited since."""
  if schema["data"] != info["data_fingerprint"]:
    raise ForeignFile(f"schema and run.json in {cfg.out!r} are of different data")
  for spec, now in Own().sources(Compare(methods=(), encoder=cfg.encoder)).items():
    if info["sources"].get(spec) != now:
      raise UsageError(f"the file of {spec!r} was edited since the run")


def say_chosen(found: "Opened") -> None:
  """What was chosen, and what was not read, on standard error: the table goes to standard output."""
  new, record, row, why = found.new, found.record, found.row, found.why
  where = "" if record["fold"] is None else f", fold {record['fold']}"
  notes = [f"{row.name}, seed {record['seed']}{where}: {why}", *new.notes]
  alone = row.fixed.get("modality")
  lacking = 0 if alone is None else int((~new.split.mask[alone]).sum())
  if lacking:
    notes.append(
      f"{lacking} rows lack {alone}, all that {row.name} reads: nothing is known of them"
    )
  for said in notes:
    print(f"note: {said}", file=sys.stderr)


def predict(
  run: str,
  path: str,
  *,
  method: str | None = None,
  seed: int | None = None,
  methods: Mapping[str, Any] | None = None,
) -> str:
  """CSV text: row, prediction, one probability column per class (values for regression).

  Of a retrieval, what its rows are compared by: the bits of each modality's code in one column,
  `code_image`, or its features, `image_0`, `image_1`...; empty where a row lacks the modality.

  Says on standard error which row, seed and fold it took and why, and what it did not read.

  Args:
    run: the output folder of a comparison.
    path: an .npz with modalities of the run, and masks. A modality may be left out where each row
      has another one; label, split, group and weight are ignored, other arrays with a note.
    method: a row of the run; default: the best by validation.
    seed: which of its runs; default the first.
    methods: the builders that the run was given from Python; default none, and then no row of
      theirs can be taken.

  Raises:
    UsageError, data.DataError: no such run, method, seed, or arrays that do not fit.
  """
  found = opened(run, method=method, seed=seed, methods=methods, read=Reading(path))
  say_chosen(found)
  schema = found.schema
  outputs = train.predict_split(found.method, found.state, found.new.split)
  if schema["task"] == RETRIEVAL:
    return _places(outputs, found.new.split.mask)
  logits = np.asarray(outputs.logits)
  return _csv(
    tasks.get(schema["task"]).probabilities(_in_unit(logits, schema.get("target"))), schema
  )


class Reading(NamedTuple):
  """What is wanted of a run."""

  path: str | None  # an .npz of new rows; None: none are read
  only: tuple[str, ...] | None = None  # the modalities of it that are read; None = all
  generate: bool = False  # from a row that can, instead of predicting


class Opened(NamedTuple):
  """A row of a finished run, ready to be asked."""

  method: Method
  state: State
  new: NewRows
  row: Row
  record: dict
  why: str  # that one
  schema: dict
  scaler: Any  # `data.Scaler` of the run


def opened(
  run: str,
  *,
  read: Reading,
  method: str | None = None,
  seed: int | None = None,
  methods: Mapping[str, Any] | None = None,
) -> Opened:
  """The row asked for, or the best by validation of those that can.

  Args:
    run, method, seed, methods: as in `predict`.
    read: what is wanted of it.

  Raises:
    UsageError, data.DataError: as `predict`.
  """
  folder = pathlib.Path(run)
  info, schema, records = read_run(folder)
  config: dict[str, Any] = {
    k: tuple(v) if isinstance(v, list) else v for k, v in info.get("config", {}).items()
  }
  if info.get("format") != FORMAT:  # its configuration may have other names
    raise UsageError(f"the run in {run!r} was written by another version of mmfuse")
  if schema["task"] == GENERATION and not read.generate:
    raise UsageError(f"the run in {run!r} has no labels (task {GENERATION}), so nothing to predict")
  cfg = Compare(**config, out=run)
  _check_run(info, schema, cfg)
  encoders = encoder_choices(cfg)
  new = _new_rows(read, schema, encoders)
  own = Own(methods)
  gone = own.lacking(info["sources"])
  rows = _rows(cfg, schema, own, gone)
  without = _without(records, rows, [] if read.generate else new.absent, gone)
  splits = stand_in(schema, encoders)
  if read.generate:
    without |= _silent(cfg, splits, rows, records)
  scores = {name: metrics.Score(**kept) for name, kept in info.get("scores", {}).items()}
  record, why = _pick(records, method, seed, without, scores)
  row = rows[record["method"]]
  if config_hash(row.config(cfg)) != record["config_hash"]:
    raise UsageError(f"{row.name} is another method than in the run: its file was edited since")
  search = Search(cfg, Store(folder), splits, record["fold"], lambda *_: None, info["versions"])
  trial = search.chosen({**record, **record["tuning"]})
  built = search.method(row, trial)
  weights = search.path(row, record["seed"], trial, ".safetensors")
  if not weights.is_file():
    raise UsageError(f"the weights of {row.name!r} are gone: there is no file {str(weights)!r}")
  state = search.load_weights(row, record["seed"], trial, search.template(built))
  return Opened(built, state, new, row, record, why, schema, splits.scaler)


def _new_rows(read: Reading, schema: dict, encoders: dict) -> NewRows:
  """The rows of the file; of none one row that has no modality."""
  if read.path is None:
    split = stand_in(schema, encoders).train.rows(np.arange(1))
    nobody = {m: np.zeros(1, bool) for m in split.mask}
    return NewRows(split.replace(mask=nobody), sorted(nobody), [])
  arrays = data.read_arrays(read.path)
  known = schema["inputs"]
  if read.only is not None:
    skip = {n for m in set(known) - set(read.only) for n in (m, MASK + m, LENGTH + m)}
    arrays = {n: x for n, x in arrays.items() if n not in skip}
  return read_rows(arrays, schema, encoders)


def _silent(cfg: Compare, splits: Any, rows: Mapping[str, Row], records: list[dict]) -> dict:
  """{row: why it cannot be taken}: it has nothing to generate with."""
  model = make_model(splits, cfg.fusion)
  names = {r["method"]: r for r in records}
  can = lambda row: "generate" in row.build(cfg, model, row.trials(cfg)[0]).functions
  return {n: "does not generate" for n, row in rows.items() if n in names and not can(row)}


def _in_unit(values: np.ndarray, target: dict | None) -> np.ndarray:
  """Regression in the unit of the file: value * std + mean of the training targets, [N, R]."""
  if target is None:
    return values
  return values * np.asarray(target["std"]) + np.asarray(target["mean"])


def _places(outputs: Outputs, mask: Mapping[str, Any]) -> str:
  """Codes as strings of 0 and 1, or features, of each modality."""
  found, bits = metrics.space_of(outputs)
  header, columns = ["row"], []
  for m in sorted(set(found) & set(mask)):
    values = found[m].reshape(len(found[m]), -1)
    if bits:
      header.append(f"code_{m}")
      said = [["".join("1" if v > 0 else "0" for v in row)] for row in values]
    else:
      header += [f"{m}_{i}" for i in range(values.shape[1])]
      said = [[f"{v:.6g}" for v in row] for row in values]
    columns.append([row if there else [""] * len(row) for row, there in zip(said, mask[m])])
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(header)
  writer.writerows([i, *(x for part in row for x in part)] for i, row in enumerate(zip(*columns)))
  return buffer.getvalue()


def _csv(values: np.ndarray, schema: dict) -> str:
  names = schema["class_names"] or [str(i) for i in range(values.shape[1])]
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  if schema["task"] == REGRESSION:
    writer.writerow(["row", *[f"prediction_{n}" for n in names]])
  else:
    writer.writerow(["row", "prediction", *[f"p_{n}" for n in names]])
  for i, row in enumerate(values):
    shown = [f"{v:.6g}" for v in row]
    if schema["task"] == CLASSIFICATION:
      writer.writerow([i, names[int(row.argmax())], *shown])
    elif schema["task"] == MULTILABEL:
      writer.writerow([i, " ".join(n for n, v in zip(names, row) if v > 0.5), *shown])
    else:
      writer.writerow([i, *shown])
  return buffer.getvalue()
