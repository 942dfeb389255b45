"""The only place that reads test rows, after the choices are written: records and the report."""

import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmfuse import masks, metrics, report, tasks, train
from mmfuse.core import Sequence
from mmfuse.names import GENERATION, SEGMENTATION
from mmfuse.protocol import _generation, _maps
from mmfuse.protocol._missing import Questions
from mmfuse.protocol._rows import Row, config_hash
from mmfuse.protocol._search import Search, Trial
from mmfuse.protocol._store import read_json, write_json
from mmfuse.train import validation_scores
from mmfuse.tree import FUSED


def test_subsets(modalities: tuple[str, ...]) -> list[tuple[str, ...]]:
  """All 2^M subsets, for Shapley values; of many modalities only the full set and all but one."""
  every = tuple(sorted(modalities))
  if len(every) <= masks.MOST_SUBSETS:
    return masks.every_subset(every)
  left = [tuple(m for m in every if m != out) for out in every]
  return [every, *(s for s in left if s)]


def records_of(
  search: Search,
  row: Row,
  choice: dict,
  test: Any,
  shared: Mapping[str, Any],
  tables: Mapping[float, Any] = {},
) -> list[dict]:
  """One record per seed of a row on one split; opens the test rows.

  `unimodal` rows and `late_average` have no fused head: `fused` is that system's own prediction. A
  modality that no training or no test row has is not judged: its head's scores are None, and it has
  no contribution, Shapley value or probe. A subset of modalities that no test row has all of has no
  score, and there are no Shapley values then.

  Args:
    search: of the split, where the runs are.
    row: the method.
    choice: of the row on this split, as its file says.
    test: the test rows.
    shared: {field: value} that all records of the row have.
    tables: {rate: table} of missing modalities to score, default none.
  """
  trial = search.chosen(choice)
  method = search.method(row, trial)
  template = search.template(method)
  own, dense = tasks.metric_of(search.splits), search.splits.task == SEGMENTATION
  modalities = search.splits.modalities
  trained = [m for m in modalities if search.splits.train.mask[m].any()]
  nobody = train.absent(test)
  judged = tuple(m for m in trained if m not in nobody)
  subsets = test_subsets(judged)
  questions = Questions(test, subsets, judged, tables)
  out = []
  for seed in search.seeds:
    saved = search.saved(row, seed, trial)
    log = train.RunLog.from_json(saved["log"])
    name = tasks.get(search.splits.task).primary
    # A run that diverged before any usable epoch has no score.
    full, by_subset, probes, answers = {}, {}, {}, {}
    limits: dict[str, Any] = {}
    if log.selected_epoch >= 0:
      state = search.load_weights(row, seed, trial, template)
      metric = train.fitted(method, state, search.splits.validation, own)
      answers = questions.ask(method, state, test, metric)
      by_subset = {subset: answers["whole", subset][FUSED][name] for subset in subsets}
      full = answers["whole", modalities]
      if search.splits.task == GENERATION and _generation.can(method):
        beside = _generation.further(method, state, search.splits, test, search.judges)
        full = {**full, FUSED: {**full[FUSED], **beside}}
      if dense:
        beside = _maps.slice_scores(method, state, test, metric, search.splits.num_outputs)
        full = {**full, FUSED: {**full[FUSED], **beside}}
        limits = {"thresholds": _maps.thresholds(metric, modalities)}
      if search.cfg.probe and search.splits.task not in (GENERATION, SEGMENTATION):
        probes = train.linear_probe(
          method,
          state,
          search.splits.train,
          test,
          task=search.splits.task,
          num_outputs=search.splits.num_outputs,
        )
    validation = {
      h: score if h in (FUSED, *trained) else None
      for h, score in validation_scores(log, name, modalities).items()
    }
    tested = {
      h: full[h][name] if h in full and h in (FUSED, *judged) else None
      for h in (FUSED, *modalities)
    }
    out.append(
      {
        **of_run(search, row, choice, seed, log, template),
        # None: no row has the modality; NaN: the prediction is not finite.
        "validation": validation,
        "test": tested,
        "scores": {"test": full.get(FUSED, {}), "validation": further_validation(log)},
        "contribution": contribution(by_subset, judged),
        "shapley": shapley(by_subset, judged) if questions.every(judged) else {},
        "subsets": questions.subsets(answers, name),
        **(
          {"select": search.cfg.select, "missing_rates": questions.curve(answers, name)}
          if search.cfg.missing
          else {}
        ),
        "probe": probes,
        **limits,
        "conflict_rate": conflict_rate(log, modalities),
        **shared,
        "versions": saved["versions"],
      }
    )
  return out


def of_run(
  search: Search, row: Row, choice: dict, seed: int, log: train.RunLog, template: Any
) -> dict[str, Any]:
  """What a record says of a run, whatever its scores are; `template`: the shapes of its state."""
  return {
    "method": row.name,
    "seed": seed,
    "fold": search.fold,
    "metric": tasks.get(search.splits.task).primary,
    "selected_epoch": log.selected_epoch,
    "learning_rate": search.chosen(choice).rate,
    "tuning": {k: choice[k] for k in ("rates", "trials", "hyper", "edge", "spread")},
    "diverged_at": log.diverged_at,
    "validation_loss": log.best_loss,
    "seconds_per_step": _step_seconds(log),
    "hook_seconds_per_step": statistics.mean(
      e.get("hook_seconds_per_step", 0.0) for e in log.history
    ),
    "parameters": sum(int(np.prod(x.shape)) for x in jax.tree.leaves(template.params)),
    "config_hash": config_hash(row.config(search.cfg)),
    "data_fingerprint": search.splits.fingerprint,
  }


def further_validation(log: train.RunLog) -> dict[str, float]:
  """All metrics of the row's own prediction at the selected epoch."""
  entry = log.selected
  return {} if entry is None else (entry["validation"] or {}).get(FUSED, {})


def contribution(
  scores: Mapping[tuple[str, ...], float], modalities: tuple[str, ...]
) -> dict[str, float]:
  """{modality: what the fused prediction loses without it}; nothing to say of a single modality."""
  return metrics.contribution(scores) if scores and len(modalities) > 1 else {}


def shapley(
  scores: Mapping[tuple[str, ...], float], modalities: tuple[str, ...]
) -> dict[str, float]:
  """{modality: its Shapley value in the fused score}; {} where not all subsets were scored."""
  return metrics.shapley(scores) if len(scores) == 2 ** len(modalities) else {}


def conflict_rate(log: train.RunLog, modalities: tuple[str, ...]) -> dict[str, float]:
  """{modality: share of the last phase's diagnosed epochs in which fused and own gradient disagreed}."""
  epochs = [e for e in log.history if e["phase"] == log.history[-1]["phase"]]
  seen = {m: [e[f"conflict/{m}"] for e in epochs if f"conflict/{m}" in e] for m in modalities}
  return {m: statistics.mean(v) for m, v in seen.items() if v}


def _step_seconds(log: train.RunLog) -> float:
  return statistics.median(e["seconds_per_step"] for e in log.history[1:] or log.history)


def evaluations(search: Search, row: Row) -> int:
  """Rows of gradient evaluations of all runs of a row on a split, trials included."""
  files = search.store.run_files(row.slug, search.fold)
  return sum(read_json(f)["log"]["examples"] for f in files)


def histories(
  search: Search, rows_and_trials: list[tuple[Row, Trial]]
) -> dict[str, list[list[dict]]]:
  """{method: per seed the curve of the final run}, for the plots."""
  task = tasks.get(search.splits.task)
  name = task.primary
  if search.cfg.missing and search.cfg.select is not None:
    name = search.cfg.select  # over subsets: what was chosen by
  out = {}
  for row, trial in rows_and_trials:
    curves = []
    for seed in search.seeds:
      history = search.saved(row, seed, trial)["log"]["history"]
      curves.append(
        [
          {
            "epoch": i,
            "validation": (e["validation"] or {}).get(FUSED, {}).get(name),
            "train_loss": sum(v for k, v in e.items() if k.startswith("loss/")),
          }
          for i, e in enumerate(history)
          if e["validation"] or task.collected is not None  # which has one score, at the end
        ]
      )
    out[row.name] = curves
  return out


def write_report(
  folder: pathlib.Path,
  summary: report.Summary,
  curves: dict,
  recall: report.RecallCurves | None = None,
  grids: Mapping[str, pathlib.Path] = {},
) -> None:
  """table.md, table.csv, the PNGs and index.html, each written whole.

  Args:
    folder: of the run.
    summary: what is shown.
    curves: {method: curve of each seed}.
    recall: of a retrieval, default None.
    grids: {title: PNG} of samples, default none.
  """
  report.write_whole(folder / "table.md", (report.markdown(summary) + "\n").encode())
  report.write_whole(folder / "table.csv", report.csv(summary).encode())
  images: dict[str, pathlib.Path] = {}
  if recall is not None:
    text = report.precision_recall_csv(recall)
    report.write_whole(folder / "precision_recall.csv", text.encode())
  if summary.rows and _can_draw():
    images["Accuracy per modality" if summary.metric == "accuracy" else "Score per modality"] = (
      report.bars(summary, folder / "modalities.png")
    )
    if any(c for runs in curves.values() for c in runs):
      images["Learning curves"] = report.curves(curves, folder / "curves.png", metric=summary.score)
    if any(row.missing is not None and row.missing.curve for row in summary.rows):
      images["Score over the missing rate"] = report.missing_curve(summary, folder / "missing.png")
  if recall is not None and recall.rows and _can_draw():
    path = folder / "precision_recall.png"
    images["Precision over recall"] = report.precision_recall(recall, path)
  report.html(summary, dict([*images.items(), *grids.items()]), folder / "index.html")


def grids(search: Search, done: Mapping[Row, dict], split: Any) -> dict[str, pathlib.Path]:
  """{title: PNG} of what each row's first run makes of the first test rows: samples, or maps over the inputs.

  {} of other tasks, and where nothing generates.

  Args:
    search: of one split, where the runs are.
    done: {row: {fold: choice}}.
    split: `data.Splits` with the test rows.
  """
  found: dict[str, pathlib.Path] = {}
  drawn = split.task in (GENERATION, SEGMENTATION) and _can_draw()
  for row, choices in done.items() if drawn else ():
    trial, seed = search.chosen(choices[search.fold]), search.seeds[0]
    method = search.method(row, trial)
    log = train.RunLog.from_json(search.saved(row, seed, trial)["log"])
    dense = split.task == SEGMENTATION
    if log.selected_epoch < 0 or not (dense or _generation.can(method)):
      continue
    state = search.load_weights(row, seed, trial, search.template(method))
    if dense:
      metric = train.fitted(method, state, search.splits.validation, tasks.metric_of(split))
      path = search.store.folder / f"maps_{row.slug}.png"
      found[f"Maps of {row.name}"] = _maps.overlays(method, state, split, metric, path)
      continue
    lines = _generation.samples(method, state, split.test, split.scaler)
    if lines:
      path = search.store.folder / f"samples_{row.slug}.png"
      found[f"Samples of {row.name}"] = report.samples(lines, path)
  return found


def _can_draw() -> bool:
  import importlib.util

  if importlib.util.find_spec("matplotlib") is not None:
    return True
  print("no plots: pip install 'mmfuse[report]' brings matplotlib")
  return False


def save_schema(folder: pathlib.Path, splits: Any, fold: int | None) -> None:
  """What `mmfuse predict` needs besides weights: standardisation, shapes, classes."""
  write_json(
    folder / ("schema.json" if fold is None else f"schema-fold{fold}.json"),
    {
      "data": splits.fingerprint,
      "scaler": splits.scaler.to_json(),
      "task": splits.task,
      "num_outputs": splits.num_outputs,
      "class_names": list(splits.class_names),
      "target": None if splits.target is None else splits.target.to_json(),
      **({"places": list(splits.train.label.shape[1:])} if splits.task == SEGMENTATION else {}),
      "inputs": {m: _shape(x) for m, x in sorted(splits.train.inputs.items())},
    },
  )


def _shape(x: Any) -> dict[str, Any]:
  """The schema of a modality; `length`: rows may end early."""
  if isinstance(x, Sequence):
    return {"shape": list(x.values.shape[1:]), "length": True, "largest": None}
  return {"shape": list(x.shape[1:]), "largest": int(x.max()) if x.dtype.kind == "i" else None}
