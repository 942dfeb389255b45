"""Segmentation by maps that were learnt from tags: a threshold a modality, chosen on validation masks."""

from typing import Any

import numpy as np

from mmfuse.core import Outputs, Unavailable
from mmfuse.metrics._collected import Collected
from mmfuse.metrics._scores import Score
from mmfuse.metrics._surface import ASSD, EMPTY, SLICE_DICE, slice_scores
from mmfuse.names import VOID

CAMS, MASK = "cams", "mask"  # in `Outputs.aux` and in `Split.truth`
GRID = np.arange(100) / 100  # thresholds of maps in [0, 1]
THRESHOLD = Score("map_threshold", words="threshold of maps")
WEAK = (SLICE_DICE, ASSD, EMPTY, THRESHOLD)


def said_classes(outputs: Outputs, m: str) -> np.ndarray:
  """int [N]: the class that the network of a modality says of each row; 0 is nothing."""
  return np.asarray(outputs.unimodal_logits[m]).argmax(-1)


def thresholded(maps: Any, said: Any, threshold: float) -> np.ndarray:
  """int [N, H, W]: the class of a row where the map of that class exceeds the threshold, else 0.

  Args:
    maps: [N, H, W, C] in [0, 1].
    said: int [N], the class of each row; one of 0 has no place.
    threshold: in [0, 1).
  """
  maps, said = np.asarray(maps), np.asarray(said)
  own = np.take_along_axis(maps, said[:, None, None, None], -1)[..., 0]
  return np.where((own > threshold) & (said > 0)[:, None, None], said[:, None, None], 0)


def best_threshold(maps: Any, said: Any, mask: Any) -> float:
  """The threshold of `GRID` of the best mean Dice over slices that have a class; of ties the smallest.

  Args:
    maps, said: as in `thresholded`.
    mask: int [N, H, W], classes or -1, which does not count.

  Raises Unavailable where no slice has a class.
  """
  maps, said, mask = np.asarray(maps), np.asarray(said), np.asarray(mask)
  means = []
  for c in range(1, maps.shape[-1]):
    truth = mask == c
    rows = np.flatnonzero(truth.any((1, 2)))
    if not len(rows):
      continue
    known, right = (mask[rows] != VOID), (said[rows] == c)[:, None, None]
    over = np.where(known & right, maps[rows, ..., c], -1.0)
    both = _above(np.where(truth[rows], over, -1.0))
    total = _above(over) + truth[rows].sum((1, 2))[:, None]
    means.append((2 * both / total).mean(0))
  if not means:
    raise Unavailable("a threshold is chosen on validation masks, and none shows anything")
  return float(GRID[np.argmax(np.mean(means, 0))])


def _above(values: np.ndarray) -> np.ndarray:
  """[N, thresholds]: how many values of a row exceed each."""
  flat = np.sort(values.reshape(len(values), -1), 1)
  return np.stack([flat.shape[1] - np.searchsorted(row, GRID, side="right") for row in flat])


def weak_segmentation(*, tagged: bool = False) -> Collected:
  r"""Dice and ASSD of thresholded `aux["cams"]` {m: [N, H, W, C]}, by modality, where there is something.

  A place is of class c where the network of a modality says c of the row and its map of c exceeds a
  threshold, one for each modality: that of the best mean Dice on validation masks. Scores are
  "dice_of_slices/<m>", "assd/<m>", "empty_predictions/<m>" and "map_threshold/<m>", as `slice_scores` has
  them, and without a modality their means; NaN where no validation mask shows anything. Masks are
  `truth["mask"]`, int [N, H, W], classes as those of the label or -1, which what is no number counts as;
  rows that lack a modality are not scored by it.

  Args:
    tagged: default False; True reads the map of the row's label instead of the class that was said.

  Raises:
    Unavailable: (of `compute`) a method without such maps, data without such masks.
  """

  def of(m: str, outputs: Outputs, part: Any):
    """(maps, classes, masks) of the rows that have m."""
    here = np.asarray(part.mask[m])
    said = np.asarray(part.label) if tagged else said_classes(outputs, m)
    return np.asarray(outputs.aux[CAMS][m])[here], said[here], masks_of(part)[here]

  def compute(outputs, parts):
    found: dict[str, float] = {}
    names = sorted(_maps_of(outputs["test"], parts["test"]))
    for m in names:
      maps, said, mask = of(m, outputs["validation"], parts["validation"])
      if not (mask > 0).any():  # nothing to choose a threshold by
        found |= {f"{s.name}/{m}": float("nan") for s in WEAK}
        continue
      limit = best_threshold(maps, said, mask)
      maps, said, mask = of(m, outputs["test"], parts["test"])
      classes = range(1, maps.shape[-1])
      scores = slice_scores(mask, thresholded(maps, said, limit), classes)
      found |= {f"{name}/{m}": v for name, v in {**scores, THRESHOLD.name: limit}.items()}
    mean = lambda name: float(np.mean([found[f"{name}/{m}"] for m in names]))
    return {**{s.name: mean(s.name) for s in WEAK}, **found}

  return Collected(("validation", "test"), compute, WEAK)


def has_weak_masks(outputs: Outputs, part: Any) -> bool:
  """Whether `weak_segmentation` can be asked: maps of the size of the masks.

  Args:
    outputs: of a part.
    part: it, a source.
  """
  maps, masks = outputs.aux.get(CAMS), getattr(part, "truth", {}).get(MASK)
  if maps is None or masks is None:
    return False
  return all(np.shape(x)[:3] == np.shape(masks) for x in maps.values())


def masks_of(part: Any) -> np.ndarray:
  """int [N, H, W]; VOID where it is no number."""
  mask = np.asarray(part.truth[MASK])
  return np.where(np.isfinite(mask), mask, VOID).astype(np.int64)


def _maps_of(outputs: Outputs, part: Any):
  if not has_weak_masks(outputs, part):
    raise Unavailable("weak segmentation reads aux['cams'] of the size of truth['mask'] [N, H, W]")
  return outputs.aux[CAMS]
