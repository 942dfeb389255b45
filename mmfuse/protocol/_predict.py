"""`mmfuse predict RUN --data new.npz`: probabilities from a run's weights and standardisation."""

import csv
import io
import pathlib
from typing import Any

import numpy as np

from mmfuse import data, train
from mmfuse.protocol._config import Compare, UsageError, closest
from mmfuse.protocol._rows import encoder_choices, make_rows
from mmfuse.protocol._search import Search, Trial
from mmfuse.protocol._store import Store, read_json


def read_run(folder: pathlib.Path) -> tuple[dict, dict, list[dict]]:
  """-> (run.json, schema of the first split, records) of a finished run, or UsageError."""
  if not (folder / "run.json").is_file():
    raise UsageError(f"there is no run in {str(folder)!r} (no run.json)")
  if not (folder / "results.jsonl").is_file():
    raise UsageError(
      f"the run in {str(folder)!r} is not finished (no results.jsonl): "
      "mmfuse compare --resume goes on"
    )
  from mmfuse import report

  try:
    records = report.read_jsonl(folder / "results.jsonl")
  except ValueError as error:
    raise UsageError(str(error)) from error
  fold = records[0]["fold"] if records else None
  schema = read_json(folder / ("schema.json" if fold is None else f"schema-fold{fold}.json"))
  return read_json(folder / "run.json"), schema, records


def _mean_validation(records: list[dict]) -> float:
  """Of the row's own prediction; a run that diverged counts as the worst."""
  scores = [r["validation"]["fused"] for r in records]
  return float(np.mean([-np.inf if s is None else s for s in scores]))


def _pick(records: list[dict], method: str | None, seed: int | None) -> dict:
  """The record asked for; by default the best row by mean validation score, its first seed."""
  names = list(dict.fromkeys(r["method"] for r in records))
  if not names:
    raise UsageError("the run has no trained row")
  first = records[0]["fold"]
  means = {n: _mean_validation([r for r in records if r["method"] == n]) for n in names}
  method = max(names, key=lambda n: means[n]) if method is None else method
  if method not in names:
    raise UsageError(f"the run has no method {method!r}; {closest(method, names)}")
  mine = [r for r in records if r["method"] == method and r["fold"] == first]
  seeds = [r["seed"] for r in mine]
  seed = seeds[0] if seed is None else seed
  if seed not in seeds:
    raise UsageError(f"--seed {seed} was not run; available: {', '.join(map(str, seeds))}")
  return mine[seeds.index(seed)]


def _probabilities(logits: np.ndarray, task: str) -> np.ndarray:
  if task == "regression":
    return logits
  if task == "multilabel":
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
  shifted = np.exp(logits - logits.max(-1, keepdims=True))
  return shifted / shifted.sum(-1, keepdims=True)


def _splits_like(schema: dict, encoders: dict, inputs: dict, mask: dict) -> Any:
  """`Splits` whose every part is the new rows: enough to build the model and to predict."""
  rows = len(next(iter(mask.values())))
  label = {
    "classification": np.zeros(rows, np.int32),
    "regression": np.zeros((rows, schema["num_outputs"]), np.float32),
    "multilabel": np.zeros((rows, schema["num_outputs"]), np.int32),
  }[schema["task"]]
  part = data.Split(inputs, label, mask, np.arange(rows, dtype=np.int32), None)
  return data.Splits(
    "new",
    part,
    part,
    None,
    schema["task"],
    schema["num_outputs"],
    tuple(schema["class_names"]),
    encoders,
    data.Scaler.from_json(schema["scaler"]),
    "",
  )


def _check_new(schema: dict, inputs: dict, mask: dict) -> None:
  for m, want in schema["inputs"].items():
    if list(inputs[m].shape[1:]) != want["shape"]:
      raise UsageError(
        f"modality {m!r} has rows of shape {list(inputs[m].shape[1:])}, "
        f"the run was trained on {want['shape']}"
      )
    if want["largest"] is not None and inputs[m].max() > want["largest"]:
      raise UsageError(
        f"modality {m!r} has the token {int(inputs[m].max())}, the run knows 0 to {want['largest']}"
      )
  present: np.ndarray = np.any([mask[m] for m in sorted(mask)], axis=0)
  if not present.all():
    raise UsageError(
      f"{int((~present).sum())} of {len(present)} rows have no modality present, "
      f"the first is row {int(np.argmin(present))}"
    )


def predict(run: str, path: str, *, method: str | None = None, seed: int | None = None) -> str:
  """CSV text: row, prediction, one probability column per class (values for regression).

  Args:
    run: the output folder of a comparison.
    path: an .npz with the run's modalities, and masks; label, split and group are ignored.
    method: a row of the run; default: the best by validation.
    seed: which of its runs; default the first.

  Raises:
    UsageError, data.DataError: no such run, method, seed, or arrays that do not fit.
  """
  folder = pathlib.Path(run)
  info, schema, records = read_run(folder)
  record = _pick(records, method, seed)
  config: dict[str, Any] = {
    k: tuple(v) if isinstance(v, list) else v for k, v in info["config"].items()
  }
  cfg = Compare(**config, out=str(folder))
  encoders = encoder_choices(cfg)
  arrays = data.read_arrays(path)
  wanted = sorted(schema["inputs"])
  inputs, mask = data.read_inputs(arrays, wanted, encoders=encoders)
  _check_new(schema, inputs, mask)
  inputs = data.Scaler.from_json(schema["scaler"]).apply(inputs, mask)
  for m, want in schema["inputs"].items():
    if want["largest"] is not None:  # the vocabulary is the run's, not that of the new rows
      inputs[m] = np.concatenate([inputs[m], np.full_like(inputs[m][:1], want["largest"])])
  splits = _splits_like(schema, encoders, inputs, mask)
  search = Search(cfg, Store(folder), splits, record["fold"], lambda *_: None, info["versions"])
  rows = {r.name: r for r in make_rows(cfg, wanted, schema["task"])[0]}
  trial = Trial(record["learning_rate"], tuple(sorted(record["tuning"]["hyper"].items())))
  row = rows[record["method"]]
  built = search.method(row, trial)
  weights = search.path(row, record["seed"], trial, ".safetensors")
  if not weights.is_file():
    raise UsageError(f"the weights of {row.name!r} are gone: there is no file {str(weights)!r}")
  state = train.load_weights(weights, search.template(built))
  count = len(next(iter(mask.values())))
  new = splits.train._replace(inputs={m: x[:count] for m, x in inputs.items()})
  logits = np.asarray(train.predict_split(built, state, new).logits)
  return _csv(_probabilities(logits, schema["task"]), schema)


def _csv(values: np.ndarray, schema: dict) -> str:
  names = schema["class_names"] or [str(i) for i in range(values.shape[1])]
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  if schema["task"] == "regression":
    writer.writerow(["row", *[f"prediction_{n}" for n in names]])
  else:
    writer.writerow(["row", "prediction", *[f"p_{n}" for n in names]])
  for i, row in enumerate(values):
    shown = [f"{v:.6g}" for v in row]
    if schema["task"] == "classification":
      writer.writerow([i, names[int(row.argmax())], *shown])
    elif schema["task"] == "multilabel":
      writer.writerow([i, " ".join(n for n, v in zip(names, row) if v > 0.5), *shown])
    else:
      writer.writerow([i, *shown])
  return buffer.getvalue()
