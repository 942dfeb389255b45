"""phantom and lesions: the reference sums, what each modality shows, and that neither is enough."""

import dataclasses
import functools

import numpy as np
import pytest

from mmfuse import data
from mmfuse.data import _phantom as phantom
from mmfuse.metrics import confusion, mean_iou

P32, P64, LESIONS = phantom.P32, phantom.P64, phantom.LESIONS
FEW = range(6)


@pytest.mark.parametrize(
  ("p", "a", "b", "lesion", "rest"),
  [
    (P64, 1238.061, 1109.975, 96, 2128),
    (P32, 303.616, 284.400, 39, 519),
    (LESIONS, 311.308, 285.857, 34, 524),
  ],
  ids=["64", "32", "lesions"],
)
def test_row_1_has_the_reference_sums(p, a, b, lesion, rest):
  row = phantom.draw(0, 0, 1, p)
  assert row.a.sum(dtype=np.float64) == pytest.approx(a, abs=1e-3)
  assert row.b.sum(dtype=np.float64) == pytest.approx(b, abs=1e-3)
  assert ((row.mask == 1).sum(), (row.mask == 0).sum()) == (lesion, rest)
  assert row.a.dtype == row.b.dtype == np.float32 and row.mask.dtype == np.int32


def test_a_row_is_the_same_alone_and_among_others():
  several = phantom.rows(3, 1, 3, P32)
  for x, y in zip(phantom.draw(3, 1, 2, P32), several):
    np.testing.assert_array_equal(x, y[2])
  other = phantom.draw(3, 2, 2, P32)
  assert not np.array_equal(other.a, several.a[2])  # another part


def test_spots_leave_no_trace_in_a_and_loops_none_in_b():
  for i in FEW:
    row = phantom.draw(0, 0, i, P32)
    dark = phantom.draw(0, 0, i, dataclasses.replace(P32, bright=0.0))
    flat = phantom.draw(0, 0, i, dataclasses.replace(P32, rim_a=0.0, core=0.0))
    np.testing.assert_array_equal(row.a, dark.a)
    np.testing.assert_array_equal(row.b, flat.b)


def test_what_is_true_does_not_depend_on_the_noise():
  loud = dataclasses.replace(P32, noise_a=0.3, noise_b=0.0)
  for i in FEW:
    row, other = phantom.draw(0, 0, i, P32), phantom.draw(0, 0, i, loud)
    for name in ("mask", "tag", "head", "spot"):
      np.testing.assert_array_equal(getattr(row, name), getattr(other, name))


def test_labels_and_values():
  rows = phantom.rows(0, 0, 60, P32)
  np.testing.assert_array_equal(rows.tag, (rows.mask == 1).any((1, 2)))
  np.testing.assert_array_equal(rows.mask == -1, ~rows.head)
  for x in (rows.a, rows.b):
    assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
    assert (x == 1).mean() < 0.01
  assert abs(rows.tag.mean() - 0.5) < 3 * np.sqrt(0.25 / 60)  # binomial
  spot = rows.spot & rows.head
  assert rows.b[rows.mask == 1].mean() == pytest.approx(rows.b[spot].mean(), abs=0.03)


def test_the_built_in_sets():
  made = phantom.table(counts=(4, 2, 3))
  assert (made.task, made.class_names) == ("segmentation", ("0", "1"))
  assert made.inputs["a"].shape == (9, 32, 32, 1) and made.label.shape == (9, 32, 32)
  splits = made.splits()
  assert [len(splits.part(p)) for p in ("train", "validation", "test")] == [4, 2, 3]
  np.testing.assert_array_equal(splits.test.label[2], phantom.draw(0, 2, 2).mask)
  tagged = phantom.lesions_table(counts=(6, 2, 3))
  assert (tagged.task, set(tagged.truth), list(tagged.inputs)) == (
    "classification",
    {"mask"},
    ["a", "b"],
  )
  np.testing.assert_array_equal(tagged.label, (tagged.truth["mask"] == 1).any((1, 2)))
  with pytest.raises(data.DataError, match="sizes 32 and 64, got 48"):
    phantom.table(48)
  with pytest.raises(data.DataError, match="lesions takes no size"):
    data.load("lesions", size=64)


def _pixels(x: np.ndarray, reach: int = 6) -> np.ndarray:
  """[N, H, W, 2 (reach + 1)]: mean and standard deviation of x [N, H, W] over annuli about each pixel."""
  from scipy import ndimage

  v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
  ring = np.rint(np.hypot(u, v)).astype(int)
  found = []
  for r in range(reach + 1):
    kernel = (ring == r) / (ring == r).sum()
    mean, square = (
      ndimage.convolve(y.astype(np.float64), kernel[None], mode="nearest") for y in (x, x**2)
    )
    found += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
  return np.stack(found, -1)


def _miou(label: np.ndarray, probability: np.ndarray, threshold: float) -> float:
  return mean_iou(confusion(label, (probability > threshold).astype(int), 2))


@pytest.mark.slow
def test_a_forest_needs_both_modalities():
  """mIoU of both at least 10 points above each alone; the threshold is that of validation rows."""
  from sklearn.ensemble import RandomForestClassifier

  parts = [phantom.rows(0, part, n, P32) for part, n in enumerate((160, 60, 120))]
  features = {m: [_pixels(getattr(p, m)) for p in parts] for m in "ab"}
  label = [p.mask for p in parts]
  rng = np.random.default_rng(0)
  rare = (label[0] == 1) | (parts[0].spot & parts[0].head)
  some = rare | ((label[0] == 0) & (rng.random(label[0].shape) < 0.08))
  weight = np.where(rare, 1.0, 1 / 0.08)[some]
  scores = {}
  for names in ("a", "b", "ab"):
    x = [np.concatenate([features[m][i] for m in names], -1) for i in range(3)]
    forest = RandomForestClassifier(
      30, min_samples_leaf=8, max_features=0.4, n_jobs=2, random_state=0
    )
    forest.fit(x[0][some], label[0][some], sample_weight=weight)
    said = [forest.predict_proba(y.reshape(-1, y.shape[-1]))[:, 1] for y in x[1:]]
    said = [p.reshape(y.shape) for p, y in zip(said, label[1:])]
    best = max(np.linspace(0.05, 0.95, 19), key=functools.partial(_miou, label[1], said[0]))
    scores[names] = _miou(label[2], said[1], best)
  assert scores["ab"] - max(scores["a"], scores["b"]) >= 0.10, scores
