"""Scores of maps: hand-computed confusion, thresholds, surfaces."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import metrics
from mmfuse.core import Batch, Outputs


def batch(label, mask, weight=None):
  rows = len(label)
  weight = np.ones(rows, np.float32) if weight is None else np.asarray(weight, np.float32)
  there = {m: jnp.asarray(v) for m, v in mask.items()}
  return Batch({}, jnp.asarray(label), there, jnp.asarray(weight), jnp.arange(rows), {}, None)


def logits_of(difference):
  """[B, H, W, 2] with z_1 - z_0 as given."""
  d = np.asarray(difference, np.float32)
  return jnp.stack([jnp.zeros(d.shape), jnp.asarray(d)], -1)


def scored(metric, given):
  sums = metric.init(given[0][0])
  for outputs, rows in given:
    sums = metric.update(sums, outputs, rows)
  return metric.compute(sums), sums


def test_three_classes_by_hand():
  label = np.array([[[0, 1], [2, -1]], [[0, 0], [1, 1]]])
  said = np.array([[[0, 1], [1, 2]], [[0, 1], [1, 1]]])
  outputs = Outputs(jnp.asarray(np.eye(3)[said] * 5.0))
  found, _ = scored(metrics.segmentation(3), [(outputs, batch(label, {"a": np.ones(2, bool)}))])
  # confusion: class 0: 2 right, 1 as 1; class 1: 3 right; class 2: 1 as 1
  assert found["fused"]["miou"] == pytest.approx((2 / 3 + 3 / 5 + 0) / 3)
  assert found["fused"]["dice"] == pytest.approx((4 / 5 + 6 / 8 + 0) / 3)
  assert found["fused"]["pixel_accuracy"] == pytest.approx(5 / 7)


def test_a_class_that_is_nowhere_counts_zero_or_is_left_out():
  label = np.array([[[0, 1], [1, 0]]])
  outputs = Outputs(jnp.asarray(np.eye(3)[label] * 5.0))
  of = lambda absent: scored(
    metrics.segmentation(3, absent=absent), [(outputs, batch(label, {"a": np.ones(1, bool)}))]
  )[0]["fused"]["miou"]
  assert (of("zero"), of("skip")) == (pytest.approx(2 / 3), pytest.approx(1.0))
  with pytest.raises(ValueError, match="absent must be one of: zero, skip"):
    metrics.segmentation(3, absent="drop")
  with pytest.raises(ValueError, match="at least 2 classes, got 1"):
    metrics.segmentation(1)


@pytest.mark.parametrize("classes", [2, 3])
def test_bins_of_millions_of_places_go_on_counting(classes):
  label = np.zeros((1, 2, 2), int)
  metric = metrics.segmentation(classes)
  given = Outputs(jnp.asarray(np.eye(classes)[label] * 5.0)), batch(label, {"a": np.ones(1, bool)})
  sums = metric.update(metric.init(given[0]), *given)
  full = {h: s._replace(counts=s.counts * 2.0**22) for h, s in sums.items()}  # 4 places: 2^24
  found = metric.update(full, *given)
  assert float(found["fused"].counts.sum()) == 2.0**24 + 4


def test_the_threshold_is_the_best_until_one_is_fitted():
  label = np.array([[[0, 0, 1, 1]]])
  metric = metrics.segmentation(2)
  given = [(Outputs(logits_of([[[-3, -2, -1, 2]]])), batch(label, {"a": np.ones(1, bool)}))]
  found, sums = scored(metric, given)
  assert found["fused"]["miou"] == 1.0  # between -2 and -1
  assert found["fused"]["miou_at_half"] == pytest.approx((2 / 3 + 1 / 2) / 2)
  fitted = metric.fit(metric, sums)
  assert fitted == metric and hash(fitted) == hash(metric)  # so that no evaluation compiles anew
  limit = metrics.thresholds(fitted)[metrics.case_of({"a": np.ones(1, bool)})[0]]
  assert -2 <= limit < -1 and limit == -1.125  # of all that are best the nearest to .5
  other = [(Outputs(logits_of([[[-1, -1, -1, 2]]])), given[0][1])]
  assert scored(fitted, other)[0]["fused"]["foreground_iou"] == pytest.approx(2 / 4)
  np.testing.assert_array_equal(
    metrics.class_maps(other[0][0].logits, {"a": np.ones(1, bool)}, metrics.thresholds(fitted)),
    [[[1, 1, 1, 1]]],
  )
  np.testing.assert_array_equal(metrics.class_maps(other[0][0].logits, {}), [[[0, 0, 0, 1]]])


def test_every_set_of_modalities_has_its_threshold():
  label = np.tile(np.array([[0, 0, 1, 1]]), (2, 1))[:, None]
  mask = {"a": np.array([True, False]), "b": np.array([True, True])}
  metric = metrics.segmentation(2)
  given = [(Outputs(logits_of([[[-3, -2, -1, 2]], [[1, 2, 3, 4]]])), batch(label, mask))]
  found, sums = scored(metric, given)
  assert found["fused"]["miou"] == 1.0
  limits = metrics.thresholds(metric.fit(metric, sums))
  assert limits[3] == -1.125 and 2 <= limits[2] < 3
  assert limits[1] == limits[0]  # of sets that no row had: that of all


def test_ties_at_a_half_are_the_first_class_as_in_arg_max():
  metric, label = metrics.segmentation(2), np.array([[[0, 1]]])
  given = (Outputs(logits_of([[[0.0, 1e-3]]])), batch(label, {"a": np.ones(1, bool)}))
  assert scored(metric, [given])[0]["fused"]["miou_at_half"] == 1.0


def test_padding_void_and_heads():
  label = np.array([[[0, 1]], [[1, -1]], [[1, 1]]])
  z = np.array([[[-1, 1]], [[1, np.nan]], [[np.nan, np.nan]]])
  mask = {"a": np.array([True, False, True])}
  outputs = Outputs(logits_of(z), {"a": logits_of(z)})
  found, _ = scored(metrics.segmentation(2), [(outputs, batch(label, mask, [1, 1, 0]))])
  assert found["fused"]["miou_at_half"] == found["a"]["miou_at_half"] == 1.0
  broken = scored(metrics.segmentation(2), [(outputs, batch(label, mask))])[0]
  assert np.isnan(broken["fused"]["miou"])  # what diverged has no score
  nobody = scored(metrics.segmentation(2), [(outputs, batch(label, mask, [0, 0, 0]))])[0]
  assert np.isnan(nobody["fused"]["miou"]) and np.isnan(nobody["a"]["nll"])


def test_the_likelihood_is_a_mean_over_places():
  label = np.array([[[0, 1]], [[1, -1]]])
  d = np.array([[[0.3, -0.2]], [[1.5, 9.0]]])
  found, _ = scored(
    metrics.segmentation(2), [(Outputs(logits_of(d)), batch(label, {"a": np.ones(2, bool)}))]
  )
  expected = np.mean(np.log1p(np.exp([0.3, 0.2, -1.5])))
  assert found["fused"]["nll"] == pytest.approx(expected, rel=1e-5)


def region(*pixels, size=(6, 6)):
  out = np.zeros(size, bool)
  for p in pixels:
    out[p] = True
  return out


def test_assd_by_hand():
  assert metrics.assd(region((2, 2)), region((2, 5))) == 3.0
  assert metrics.assd(region((2, 2)), region((2, 2))) == 0.0
  # (0 + 2 from S, 0 from T) over 3 surface pixels
  assert metrics.assd(region((1, 1)), region((1, 1), (1, 3))) == pytest.approx(2 / 3)
  assert np.isnan(metrics.assd(region((1, 1)), region()))
  block = region(*[(i, j) for i in range(1, 4) for j in range(1, 4)])
  hollow = block & ~region((2, 2))
  assert metrics.assd(block, hollow) == 0.0  # the inside of a block is no surface


def test_slices_with_nothing_said_are_counted():
  label = np.zeros((4, 6, 6), int)
  label[0, 2, 2] = label[1, 2, 2] = label[2, 0, 0] = 1
  label[:, 5] = -1
  said = np.zeros((4, 6, 6), int)
  said[0, 2, 2:4] = 1
  said[1, 5] = 1  # in void places: nothing
  said[3, 0, 0] = 1  # a slice without the class is not scored
  found = metrics.slice_scores(label, said, (1,))
  assert found["empty_predictions"] == 2
  assert found["dice_of_slices"] == pytest.approx((2 / 3 + 0 + 0) / 3)
  assert found["assd"] == pytest.approx(1 / 3)
  nothing = metrics.slice_scores(np.zeros((1, 6, 6), int), said[:1], (1,))
  assert np.isnan(nothing["assd"]) and nothing["empty_predictions"] == 0
