import numpy as np
import pytest

from mmfuse.data import _synthetic, load


@pytest.fixture(scope="module")
def tables():
  return {n: load(f"synthetic_{n}") for n in (1, 2)}


def probe(x, label, train, test):
  """Test accuracy of the nearest class mean, which is optimal for one unit cluster per class."""
  means = np.stack([x[train][label[train] == c].mean(0) for c in range(8)])
  distance = np.square(x[test][:, None] - means).sum(-1)
  return (distance.argmin(1) == label[test]).mean()


@pytest.mark.parametrize(("n", "columns"), [(1, (20, 60)), (2, (300, 60))])
def test_schema(tables, n, columns):
  splits = tables[n].splits()
  assert tuple(splits.train.inputs[m].shape[1] for m in "AB") == columns
  assert [len(p.label) for p in (splits.train, splits.validation, splits.test)] == [2400, 800, 2400]
  np.testing.assert_array_equal(np.bincount(tables[n].label), [700] * 8)
  assert load(f"synthetic_{n}").fingerprint == tables[n].fingerprint


def test_regime(tables):
  train, test = np.arange(2400), np.arange(3200, 5600)
  scores = {}
  for n, t in tables.items():
    scores |= {(n, m): probe(t.inputs[m], t.label, train, test) for m in "AB"}
  assert 0.65 < scores[1, "A"] < 0.73  # 30 % show a wrong class, and no classifier can know
  assert 0.80 < scores[2, "A"] < 0.95  # weak, but right
  assert 0.70 < scores[1, "B"] < 0.82  # three clusters a class: class means lose much, nets get .86
  assert 0.60 < scores[2, "B"] < 0.75  # and .81


def test_a_shows_a_wrong_class_in_thirty_percent(tables):
  x, label = tables[1].inputs["A"], tables[1].label
  means = np.stack([np.median(x[label == c], 0) for c in range(8)])
  shown = np.square(x[:, None] - means).sum(-1).argmin(1)
  wrong = shown != label
  assert abs(wrong.mean() - 0.3) < 0.03
  other = (shown - label)[wrong] % 8  # any of the others, equally often
  assert np.ptp(np.bincount(other, minlength=8)[1:]) / wrong.sum() < 0.05


def test_b_has_three_clusters_per_class():
  centres = _synthetic.RECIPES[1].signal["B"] ** 2 * 60 * 2  # expected squared distance of centres
  x, label = load("synthetic_1").inputs["B"], load("synthetic_1").label
  spread = x[label == 0].var(0).sum()  # 60 of noise, and 2/3 of the variance of 3 centres, +- luck
  assert abs(spread - 60 - centres / 2 * 2 / 3) < 4
