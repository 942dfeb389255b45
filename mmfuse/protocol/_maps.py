"""Segmentation in records, reports and predictions: thresholds, scores of slices, maps over the inputs."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse import masks, metrics, report, train
from mmfuse.core import Method, State
from mmfuse.names import SEGMENTATION

SHOWN = 6  # slices of a picture


def _sigmoid(z: float) -> float:
  return float(1.0 / (1.0 + np.exp(-z)))


def thresholds(metric: metrics.Metric, modalities: tuple[str, ...]) -> dict[str, float]:
  """{"a+b": probability of the second class above which it is said}, of every set of modalities; or {}."""
  limits = metrics.thresholds(metric)
  names = sorted(modalities)
  if limits is None:
    return {}
  if len(names) > masks.MOST_SUBSETS:  # one for all
    return {"+".join(names): _sigmoid(limits[0])}
  of = lambda subset: sum(1 << names.index(m) for m in subset)
  return {"+".join(s): _sigmoid(limits[of(s)]) for s in masks.combinations(names)}


def limits_of(kept: Mapping[str, float], modalities: tuple[str, ...]) -> np.ndarray | None:
  """What `metrics.class_maps` takes, of the thresholds of a record; None where there are none."""
  if not kept:
    return None
  names = sorted(modalities)
  out = np.zeros(2**masks.MOST_SUBSETS)
  for words, p in kept.items():
    several = len(names) > masks.MOST_SUBSETS
    at = 0 if several else sum(1 << names.index(m) for m in names if m in words.split("+"))
    out[at] = np.log(p) - np.log1p(-p)
  return out


def maps(method: Method, state: State, split: Any, metric: metrics.Metric) -> np.ndarray:
  """int32 [N, H, W], what is said of every place of a split."""
  outputs = train.predict_split(method, state, split)
  return metrics.class_maps(outputs.logits, split.mask, metrics.thresholds(metric))


def slice_scores(
  method: Method, state: State, test: Any, metric: metrics.Metric, num_classes: int
) -> dict[str, float]:
  """Dice and ASSD of the test slices, of every class but the first; see `metrics.slice_scores`."""
  rows = np.flatnonzero(train.judged(test))
  said = maps(method, state, test, metric)
  return metrics.slice_scores(test.label[rows], said[rows], range(1, num_classes))


def overlays(
  method: Method, state: State, splits: Any, metric: metrics.Metric, path: pathlib.Path
) -> pathlib.Path:
  """A picture of the first test slices: every modality, with what is true and what is said over it."""
  rows = np.arange(len(splits.test))[:SHOWN]
  few = splits.test.rows(rows)
  said = maps(method, state, few, metric)
  lines = []
  for m in splits.modalities:
    pictures = [np.where(few.mask[m][i], few.inputs[m][i].mean(-1), 0.0) for i in range(len(few))]
    lines.append((m, pictures))
  return report.overlays(lines, few.label, said, path, class_names=splits.class_names)


def notes(splits: Any, records: list[dict[str, Any]]) -> list[str]:
  """How maps were judged, and the further scores of every row; nothing of another task."""
  if splits.task != SEGMENTATION or not records:
    return []
  two = splits.num_outputs == 2
  said = (
    "mIoU: mean over classes of the IoU over all places of the part that are not void; a class that "
    "neither occurs nor is said counts 0"
  )
  if two:
    said += (
      ". Class 1 is said above a threshold of its probability, one for each set of modalities that a "
      "row has, that of the best mIoU on validation rows; the validation column is tuned on itself"
    )
  found = [said + "."]
  wanted = ["miou", *(["miou_at_half", "foreground_iou"] if two else ["dice"])]
  wanted += ["dice_of_slices", "assd", "empty_predictions"]
  lines = []
  for row in dict.fromkeys(r["method"] for r in records):
    tested = [r["scores"]["test"] for r in records if r["method"] == row and r["scores"]["test"]]
    parts = [_shown(name, [t[name] for t in tested if name in t]) for name in wanted]
    if tested:
      lines.append(f"{row} {', '.join(p for p in parts if p)}")
  passports = {s.name: s for s in (*_passports(splits), *metrics.SURFACE)}
  words = ", ".join(passports[name].words for name in wanted)
  found.append(f"test means over runs of {words} (count): " + "; ".join(lines) + ".")
  return found


def _passports(splits: Any) -> tuple[metrics.Score, ...]:
  return metrics.segmentation(splits.num_outputs).scores


def _shown(name: str, values: list[float]) -> str:
  finite = [v for v in values if np.isfinite(v)]
  if not finite:
    return "n/a"
  mean = float(np.mean(finite))
  if name == "assd":
    return f"{mean:.2f}"
  return f"{mean:.1f}" if name == "empty_predictions" else f"{100 * mean:.1f}"
