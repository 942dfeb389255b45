"""What is said of where: maps that were learnt from tags, beside the scores of the tags."""

import numpy as np

from mmfuse import data, metrics, train
from mmfuse.core import Method, State
from mmfuse.metrics import Score

READS = metrics.weak_segmentation().reads


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
  outputs = {name: train.predict_split(method, state, part) for name, part in parts.items()}
  if not all(metrics.has_weak_masks(outputs[name], part) for name, part in parts.items()):
    return {}
  found = metrics.weak_segmentation().compute(outputs, parts)
  return {name: value for name, value in found.items() if "/" in name and np.isfinite(value)}


def passports(modalities: tuple[str, ...]) -> list[Score]:
  """What they are called in a table."""
  return [
    s._replace(name=f"{s.name}/{m}", words=f"{s.words or s.name}, {m}")
    for s in metrics.weak_segmentation().scores
    for m in modalities
  ]
