"""Weak segmentation by hand: thresholds from validation masks, and what they give on test masks."""

import types

import numpy as np
import pytest

from mmfuse import metrics
from mmfuse.core import Outputs, Unavailable
from mmfuse.metrics import _weak

RAMP = np.linspace(0.05, 0.85, 9).reshape(1, 3, 3)  # .05, .15, ..., .85


def part(mask, label=None, present=None):
  mask = np.asarray(mask)
  rows = np.ones(len(mask), bool) if present is None else np.asarray(present)
  return types.SimpleNamespace(truth={"mask": mask}, mask={"a": rows}, label=label)


def outputs(maps, said):
  both = np.stack([np.zeros_like(maps), maps], -1)
  return Outputs(None, {"a": np.eye(2)[said]}, aux={"cams": {"a": both}})


def test_a_place_is_of_the_class_said_where_its_map_exceeds_the_threshold():
  maps = np.stack([np.ones_like(RAMP), RAMP, 1 - RAMP], -1).repeat(3, 0)
  found = metrics.thresholded(maps, [1, 2, 0], 0.5)
  np.testing.assert_array_equal(found[0], (RAMP[0] > 0.5) * 1)
  np.testing.assert_array_equal(found[1], (1 - RAMP[0] > 0.5) * 2)
  assert not found[2].any()


def test_the_threshold_is_that_of_the_best_dice_of_slices():
  mask = (RAMP > 0.6).astype(int).repeat(2, 0)
  mask[1] = 0  # nothing there: it has no say
  maps = outputs(RAMP.repeat(2, 0), [1, 1]).aux["cams"]["a"]
  found = metrics.best_threshold(maps, [1, 1], mask)
  assert 0.55 <= found < 0.65 and found == pytest.approx(0.55, abs=0.011)
  for t in _weak.GRID[::7]:
    said = metrics.thresholded(maps, [1, 1], t)
    by_hand = metrics.slice_scores(mask, said, (1,))["dice_of_slices"]
    best = metrics.slice_scores(mask, metrics.thresholded(maps, [1, 1], found), (1,))
    assert by_hand <= best["dice_of_slices"] == 1
  with pytest.raises(Unavailable, match="none shows anything"):
    metrics.best_threshold(maps, [1, 1], np.zeros_like(mask))


def test_void_places_and_slices_that_were_missed():
  mask = (RAMP > 0.6).astype(int).repeat(2, 0)
  mask[:, 1, 1] = -1  # .45: a lower threshold costs nothing there
  validation = part(mask)
  maps = RAMP.repeat(2, 0)
  found = metrics.weak_segmentation().compute(
    {"validation": outputs(maps, [1, 1]), "test": outputs(maps, [1, 0])},
    {"validation": validation, "test": validation},
  )
  assert found["map_threshold/a"] == pytest.approx(0.55, abs=0.011)
  assert found["dice_of_slices/a"] == 0.5 == found["dice_of_slices"]
  assert found["empty_predictions/a"] == 1 and found["assd/a"] == 0
  tagged = metrics.weak_segmentation(tagged=True).compute(
    {"validation": outputs(maps, [0, 0]), "test": outputs(maps, [0, 0])},
    dict.fromkeys(("validation", "test"), part(mask, label=np.asarray([1, 1]))),
  )
  assert tagged["dice_of_slices/a"] == 1


def test_rows_without_a_modality_are_not_scored_by_it():
  mask, maps = (RAMP > 0.6).astype(int).repeat(2, 0), RAMP.repeat(2, 0)
  maps[1] = 0
  found = metrics.weak_segmentation().compute(
    dict.fromkeys(("validation", "test"), outputs(maps, [1, 1])),
    dict.fromkeys(("validation", "test"), part(mask, present=[True, False])),
  )
  assert found["dice_of_slices/a"] == 1 and found["empty_predictions/a"] == 0


def test_what_is_no_number_in_a_mask_counts_nowhere():
  mask, maps = (RAMP > 0.6).astype(float).repeat(2, 0), RAMP.repeat(2, 0)
  mask[1] = np.nan  # a slice that nobody drew
  found = metrics.weak_segmentation().compute(
    dict.fromkeys(("validation", "test"), outputs(maps, [1, 1])),
    dict.fromkeys(("validation", "test"), part(mask)),
  )
  assert found["dice_of_slices/a"] == 1 and found["empty_predictions/a"] == 0


def test_without_a_validation_mask_that_shows_something_there_is_no_score():
  mask = (RAMP > 0.6).astype(int)
  found = metrics.weak_segmentation().compute(
    dict.fromkeys(("validation", "test"), outputs(RAMP, [1])),
    {"validation": part(np.zeros_like(mask)), "test": part(mask)},
  )
  assert np.isnan(found["dice_of_slices"]) and np.isnan(found["map_threshold/a"])


def test_it_needs_maps_and_masks_of_one_size():
  maps = outputs(RAMP, [1])
  assert metrics.has_weak_masks(maps, part(RAMP > 0.5))
  assert not metrics.has_weak_masks(maps, part(np.zeros((1, 2, 2))))
  assert not metrics.has_weak_masks(Outputs(None), part(RAMP > 0.5))
  with pytest.raises(Unavailable, match="of the size of"):
    metrics.weak_segmentation().compute(
      dict.fromkeys(("validation", "test"), Outputs(None)),
      dict.fromkeys(("validation", "test"), part(RAMP > 0.5)),
    )
