"""Scores of single slices on the host: Dice, and the distance between two surfaces."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from mmfuse.metrics._scores import Score
from mmfuse.names import VOID

ASSD = Score("assd", larger_is_better=False, words="ASSD in pixels")
EMPTY = Score("empty_predictions", larger_is_better=False, words="slices with nothing predicted")
SLICE_DICE = Score("dice_of_slices", share=True, words="Dice of positive slices")
SURFACE = (SLICE_DICE, ASSD, EMPTY)


def surface(region: np.ndarray) -> np.ndarray:
  """bool [H, W]: the pixels of `region` with a side on the outside, or on the edge of the image."""
  region = np.asarray(region, bool)
  return region & ~ndimage.binary_erosion(region)


def assd(truth: Any, said: Any) -> float:
  r"""(\sum_{s \in S} d(s, T) + \sum_{t \in T} d(t, S)) / (|S| + |T|) in pixels; NaN where one is empty.

  Average symmetric surface distance of two regions: S, T their surfaces, d the Euclidean distance to the
  nearest pixel of the other one.

  Args:
    truth, said: bool [H, W].
  """
  t, s = surface(truth), surface(said)
  if not t.any() or not s.any():
    return float("nan")
  to_truth, to_said = (ndimage.distance_transform_edt(~x) for x in (t, s))
  return float((to_truth[s].sum() + to_said[t].sum()) / (s.sum() + t.sum()))


def slice_scores(
  label: Any, said: Any, classes: Sequence[int], *, void: int = VOID
) -> dict[str, float]:
  """Dice and ASSD of slices that have a class, means over slices and then over classes.

  A slice in which nothing was said of a class that it has counts 0 in Dice, has no ASSD and is counted:
  {"dice_of_slices", "assd", "empty_predictions"}. NaN where nothing is left to average.

  Args:
    label: int [N, H, W], classes or `void`.
    said: int [N, H, W]; what it says in void places is not read.
    classes: those that are scored; of two classes, 1.
    void: default -1.
  """
  label, said = np.asarray(label), np.asarray(said)
  known = label != void
  dice: list[float] = []
  distance: list[float] = []
  empty = 0
  for c in classes:
    truth, found = label == c, (said == c) & known
    rows = np.flatnonzero(truth.any((1, 2)))
    both = [2.0 * (truth[i] & found[i]).sum() / (truth[i].sum() + found[i].sum()) for i in rows]
    apart = [assd(truth[i], found[i]) for i in rows if found[i].any()]
    empty += len(rows) - len(apart)
    dice += [float(np.mean(both))] if both else []
    distance += [float(np.mean(apart))] if apart else []
  mean = lambda x: float(np.mean(x)) if x else float("nan")
  return {SLICE_DICE.name: mean(dice), ASSD.name: mean(distance), EMPTY.name: float(empty)}
