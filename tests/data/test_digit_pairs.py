"""digit_pairs: what its page says of images, pairs, turn and noise."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmfuse.data import DataError, _digit_pairs, load


@pytest.fixture(scope="module")
def table():
  return load("digit_pairs")


@pytest.fixture(scope="module")
def splits(table):
  return table.splits()


def test_sizes_and_scale(table, splits):
  parts = splits.train, splits.validation, splits.test
  assert [len(p) for p in parts] == [2000, 580, 1014]
  for part in parts:
    rows = slice(0, len(part) // 2)
    assert (np.diff(part.label[rows]) >= 0).all()  # in class order, then all again
    np.testing.assert_array_equal(part.inputs["x0"][rows], part.inputs["x0"][len(part) // 2 :])
  assert splits.train.inputs["x0"].min() == 0 and splits.train.inputs["x0"].max() == 1  # raw
  assert splits.notes == ("scale of x0: as it is", "scale of x1: as it is")
  again = table.splits(scale={"x1": "standard"}).train.inputs
  assert abs(again["x1"].mean()) < 1e-3 and again["x0"].max() == 1


def test_no_image_is_in_two_parts_and_none_is_its_own_partner():
  label = load_digits().target
  members = _digit_pairs.members(label, 3)
  sizes = [[len(c) for c in part] for part in members]
  assert sizes[:2] == [[100] * 10, [29] * 10] and (min(sizes[2]), max(sizes[2])) == (45, 54)
  every = np.concatenate([np.concatenate(part) for part in members])
  assert len(np.unique(every)) == len(label) == len(every)
  for classes in members:
    first, second = _digit_pairs.partners(classes, np.random.default_rng(0))
    assert (first != second).all() and (label[first] == label[second]).all()
    assert set(second) <= set(np.concatenate(classes)) and len(set(second)) > 0.8 * len(set(first))
    assert (np.unique(first, return_counts=True)[1] == 2).all()


def test_x1_is_turned_inverted_and_noisy():
  made, image = _digit_pairs.pairs(1), load_digits().images / 16
  members = _digit_pairs.members(load_digits().target, 1)
  second = _digit_pairs.partners(members[0], np.random.default_rng((1, 10)))[1]
  noise = made["x1"][:2000] - np.stack([np.rot90(1 - image[i]).ravel() for i in second])
  assert abs(noise.std() - 0.25) < 0.005 and abs(noise.mean()) < 0.005
  assert made["x1"].min() < 0 and made["x1"].max() > 1  # not clipped
  first = np.concatenate(members[0])
  np.testing.assert_array_equal(made["x0"][:1000], image[first].reshape(1000, 64))


def test_seeds_are_other_sets_with_other_fingerprints(table):
  other = _digit_pairs.table(1)
  assert table.fingerprint == load("digit_pairs").fingerprint != other.fingerprint
  assert not np.array_equal(table.inputs["x0"], other.inputs["x0"])


def test_without_scikit_learn(monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
  with pytest.raises(DataError, match=r"pip install 'mmfuse\[datasets\]'"):
    load("digit_pairs")
