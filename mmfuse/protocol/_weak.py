"""What is said of where: maps that were learnt from tags, beside the scores of the tags."""

from typing import Any

import numpy as np

from mmfuse import data, metrics, train
from mmfuse.core import Method, State
from mmfuse.metrics import Score

READS, SCORES = metrics.weak_segmentation().reads, metrics.weak_segmentation().scores


def has_masks(splits: data.Splits) -> bool:
  """Whether validation and test rows have `truth_mask`."""
  return all(name in splits.parts and "mask" in splits.parts[name].truth for name in READS)


def further(method: Method, state: State, splits: data.Splits) -> dict[str, float]:
  """{"dice_of_slices/<m>": ...} of a method with maps of the size of the masks; {} of any other.

  Thresholds are those of validation masks, which are opened here.

  Args:
    method, state: what predicts.
    splits: with all parts, and `has_masks`.
  """
  parts = {name: splits.parts[name] for name in READS}
  outputs = {}
  for name, part in parts.items():
    outputs[name] = train.predict_split(method, state, part)
    if not metrics.has_weak_masks(outputs[name], part):
      return {}
  found = metrics.weak_segmentation().compute(outputs, parts)
  return {name: value for name, value in found.items() if "/" in name and np.isfinite(value)}


def passports(modalities: tuple[str, ...]) -> list[Score]:
  """What they are called in a table."""
  return [
    s._replace(name=f"{s.name}/{m}", words=f"{s.words or s.name}, {m}")
    for s in SCORES
    for m in modalities
  ]


def notes(splits: data.Splits, records: list[dict[str, Any]]) -> list[str]:
  """What rows with maps say of where something is; nothing where there are none.

  Args:
    splits: of the report.
    records: of all rows.
  """
  found: list[str] = []
  for row in dict.fromkeys(r["method"] for r in records):
    tested = [r["scores"]["test"] for r in records if r["method"] == row and r.get("scores")]
    for m in splits.modalities:
      values = {s.name: [t[k] for t in tested if (k := f"{s.name}/{m}") in t] for s in SCORES}
      if any(values.values()):
        found.append(f"{row} {m} {', '.join(_shown(s, values[s.name]) for s in SCORES)}")
  if not found:
    blind = has_masks(splits) and not (np.asarray(splits.validation.truth["mask"]) > 0).any()
    return [
      "maps are not scored: no validation mask shows anything, to choose a threshold by."
    ] * blind
  words = ", ".join(s.words or s.name for s in SCORES)
  return [
    f"maps against masks that no step has seen, a threshold a modality by the Dice of validation masks; test "
    f"means over runs of {words}: {'; '.join(found)}."
  ]


def _shown(score: Score, values: list[float]) -> str:
  if not values:
    return "n/a"
  return f"{100 * np.mean(values):.1f}" if score.share else f"{np.mean(values):.2f}"
