import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmfuse.data import DataError, load


@pytest.fixture(scope="module")
def table():
  return load("digits")


def test_views(table):
  image = load_digits().images / 16
  clean = {"A": image[:, :, :4].reshape(-1, 32), "B": image[:, :, 4:].reshape(-1, 32)}
  pooled = [
    [[image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))] for j in range(4)]
    for i in range(4)
  ]
  clean["C"] = np.array(pooled).reshape(16, -1).T
  noise = {m: table.inputs[m] - clean[m] for m in clean}
  for m, std in (("A", 0.15), ("B", 0.45), ("C", 0.35)):
    assert abs(noise[m].std() - std) < 0.005 and abs(noise[m].mean()) < 0.005
  assert abs(np.corrcoef(noise["A"].ravel(), noise["B"].ravel())[0, 1]) < 0.02


def test_splits(table):
  splits = table.splits()
  assert [len(p.label) for p in (splits.train, splits.validation, splits.test)] == [560, 140, 1097]
  np.testing.assert_array_equal(splits.test.index, np.arange(700, 1797))
  assert np.ptp(np.bincount(splits.validation.label)) <= 2
  assert load("digits").fingerprint == table.fingerprint


def test_without_scikit_learn(monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
  with pytest.raises(DataError, match=r"pip install 'mmfuse\[datasets\]'"):
    load("digits")
