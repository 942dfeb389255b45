"""Regression targets in any unit."""

import json

import numpy as np
import pytest

from mmfuse import data, tasks, train
from mmfuse.core import Outputs
from mmfuse.tree import FUSED


def test_by_hand():
  target = data.Target.fit(np.asarray([1.0, 3.0]))
  assert target.mean.tolist() == [2.0] and target.std.tolist() == [1.0]
  np.testing.assert_array_equal(target.apply(np.asarray([1.0, 3.0, 4.0])), [-1.0, 1.0, 2.0])
  np.testing.assert_array_equal(target.restore(np.asarray([[-1.0], [2.0]])), [[1.0], [4.0]])
  again = data.Target.from_json(json.loads(json.dumps(target.to_json())))
  assert again.mean == target.mean and again.std == target.std


def test_a_constant_target_is_divided_by_one():
  target = data.Target.fit(np.full((4, 2), 7.5))
  assert target.std.tolist() == [1.0, 1.0] and not target.apply(np.full((4, 2), 7.5)).any()


def table(unit, offset=0.0):
  rng = np.random.default_rng(0)
  a = rng.normal(size=(60, 3))
  label = (a[:, 0] + 0.1 * rng.normal(size=60)) * unit + offset
  split = np.repeat(["train", "validation", "test"], 20)
  return data.table_from_arrays({"a": a, "label": label, "split": split})


@pytest.mark.parametrize("unit, offset", [(1e-6, 0.0), (1.0, 0.0), (1e8, 2e9), (1e-3, 1e4)])
def test_what_is_learnt_is_the_same_in_every_unit(unit, offset):
  plain, other = table(1.0).splits(), table(unit, offset).splits()
  for part in ("train", "validation", "test"):
    mine = getattr(other, part).label
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, getattr(plain, part).label, rtol=1e-5, atol=2e-6)
  assert abs(float(np.mean(other.train.label))) < 1e-6
  np.testing.assert_allclose(
    other.target.restore(other.test.label[:, None])[:, 0], table(unit, offset).label[40:], rtol=1e-6
  )


def test_the_moments_are_those_of_the_training_rows():
  made = table(1.0)
  made.label[40:] = 1e6  # test rows
  assert made.splits().target.mean == table(1.0).splits().target.mean


def test_errors_are_in_the_unit_of_the_file():
  splits = table(1000.0).splits()
  metric = tasks.metric_of(splits)
  zeros = Outputs(np.zeros((20, 1), np.float32))
  totals = metric.update(metric.init(zeros), zeros, train.to_batch(splits.test))
  found, error = metric.compute(totals)[FUSED], splits.test.label * float(splits.target.std[0])
  assert float(found["mae"]) == pytest.approx(np.abs(error).mean(), rel=1e-5)
  assert float(found["rmse"]) == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
