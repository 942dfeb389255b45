"""Scores of collected predictions: attacks, dense labels, multi-label F1, means over subsets."""

import math

import numpy as np
import pytest

from mmfuse import metrics, tasks
from mmfuse.core import Batch, Outputs


def logits_of(said):
  return np.eye(2)[np.asarray(said)]


def test_acer_by_hand_and_with_the_other_class_live():
  said, label = [1, 1, 0, 0, 1], [1, 0, 0, 1, 1]  # 1 of 3 live rejected, 1 of 2 attacks accepted
  found = metrics.acer(logits_of(said), label)
  assert found == pytest.approx({"accuracy": 0.6, "apcer": 1 / 2, "bpcer": 1 / 3, "acer": 5 / 12})
  turned = metrics.acer(logits_of(said), label, live=0)
  assert (turned["apcer"], turned["bpcer"]) == (found["bpcer"], found["apcer"])
  swapped = metrics.acer(logits_of(said), label, variant="released")
  assert (swapped["apcer"], swapped["npcer"]) == (found["bpcer"], found["apcer"])


def test_without_a_class_a_rate_is_undefined_and_the_fillers_are_the_variants():
  found = metrics.acer(logits_of([1, 0]), [1, 1])
  assert math.isnan(found["apcer"]) and math.isnan(found["acer"]) and found["bpcer"] == 0.5
  assert list(metrics.acer(logits_of([1, 0]), [1, 1], variant="released").values()) == [
    0.5,
    0,
    0,
    0,
  ]
  # Both classes are there, but nothing is called an attack: that helper divides by it.
  old = metrics.acer(logits_of([1, 1]), [1, 0], variant="released_old")
  assert list(old.values()) == [0.5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
  "arguments, message",
  [
    ({"variant": "new"}, "unknown variant 'new'; expected one of: iso, released, released_old"),
    ({"label": [0, 1]}, r"logits \[B, 2\] and label \[B\], got \[3, 2\] and \[2\]"),
    ({"label": [0, 1, 2]}, "labels of 0 and 1"),
  ],
)
def test_acer_refuses_what_it_cannot_judge(arguments, message):
  with pytest.raises(ValueError, match=message):
    metrics.acer(**{"logits": logits_of([0, 1, 1]), "label": [0, 1, 1], **arguments})


def test_iou_leaves_out_void_and_says_what_an_absent_class_counts():
  label, said = np.array([[0, 0, 1], [-1, 1, -1]]), np.array([[0, 1, 1], [7, 1, 2]])
  counts = metrics.confusion(label, said, 3)
  np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 2, 0], [0, 0, 0]])
  np.testing.assert_allclose(metrics.iou(counts), [1 / 2, 2 / 3, np.nan])
  assert metrics.mean_iou(counts) == pytest.approx((1 / 2 + 2 / 3) / 3)
  assert metrics.mean_iou(counts, absent="skip") == pytest.approx((1 / 2 + 2 / 3) / 2)
  assert math.isnan(metrics.mean_iou(np.zeros((2, 2)), absent="skip"))
  with pytest.raises(ValueError, match="absent must be one of: zero, skip"):
    metrics.mean_iou(counts, absent="one")
  with pytest.raises(ValueError, match=r"prediction must lie in 0..1, got 0..7"):
    metrics.confusion(np.zeros((2, 3), int), said, 2)


def test_f1_is_that_of_the_running_metric():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(9, 4)).astype(np.float32)
  logits[:, 3] = -1  # a label that neither occurs nor is predicted
  label = (rng.random((9, 4)) < 0.5) & (np.arange(4) < 3)
  metric, outputs = tasks.metric("multilabel", 4), Outputs(logits)
  rows = np.arange(9, dtype=np.int32)
  batch = Batch({}, label.astype(np.int32), {}, np.ones(9, np.float32), rows)
  want = metric.compute(metric.update(metric.init(outputs), outputs, batch))["fused"]
  found = metrics.f1(logits, label)
  assert found["macro"] == pytest.approx(want["macro_f1"])
  assert found["micro"] == pytest.approx(want["micro_f1"])
  assert found["per_label"][3] == 0 and found["per_label"].shape == (4,)
  with pytest.raises(ValueError, match=r"got \[9, 4\] and \[9, 3\]"):
    metrics.f1(logits, label[:, :3])


def test_the_mean_over_subsets_leaves_out_those_that_no_row_has():
  scores = {("a",): 0.5, ("b",): None, ("b", "a"): 0.75}
  assert metrics.over_subsets(scores) == {"complete": 0.75, "mean": 0.625, "worst": 0.5}
  assert metrics.over_subsets(scores, larger_is_better=False)["worst"] == 0.75
  assert metrics.over_subsets({("a",): None}) == dict.fromkeys(("complete", "mean", "worst"))
  assert metrics.over_subsets({("a",): 0.5, ("a", "b"): None})["complete"] is None
  broken = metrics.over_subsets({("a",): 0.5, ("a", "b"): math.nan})
  assert math.isnan(broken["mean"]) and math.isnan(broken["worst"])
