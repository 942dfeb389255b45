"""truth_ arrays are for scores alone: whatever they hold, no parameter, hook or search sees it."""

import jax
import numpy as np

from mmfuse import data, encoders, fusion, train
from mmfuse.core import Phase, State
from mmfuse.methods.baselines import joint
from mmfuse.train._plan import without_truth

ROWS = 40


def splits(truth):
  rng = np.random.default_rng(0)
  a = rng.normal(size=(ROWS, 3))
  return data.from_arrays({"a": a, "label": (a[:, 0] > 0).astype(int), "truth_mask": truth})


def method():
  net = fusion.LateFusion({"a": encoders.MLP(2, ())}, 2)
  return joint(net, train.sgd(0.1))


def test_garbage_in_truth_moves_no_parameter():
  runs = [
    train.fit(method(), splits(truth), epochs=2, batch_size=8, diagnose=False)
    for truth in (np.zeros((ROWS, 4, 4)), np.full((ROWS, 4, 4), np.nan))
  ]
  for x, y in zip(*(jax.tree.leaves(r.state(0).params) for r in runs)):
    np.testing.assert_array_equal(x, y)
  assert runs[0].logs[0].history[-1]["validation"] == runs[1].logs[0].history[-1]["validation"]


def test_no_hook_and_no_batch_has_it():
  seen: list[dict] = []

  def begin(state: State, given, key, clock) -> State:
    seen.append({name: dict(part.truth) for name, part in given.items()})
    assert "mask" not in next(given["train"].batches(4)).extra
    return state

  plain = method()
  phase: Phase = plain.phases[0]._replace(begin=begin)
  made = splits(np.arange(ROWS))
  train.fit(plain._replace(phases=(phase,)), made, epochs=1, batch_size=8, diagnose=False)
  assert seen == [{"train": {}, "validation": {}}]
  assert set(made.test.truth) == set(made.validation.truth) == {"mask"}  # scores have it


def test_a_search_gets_splits_without_it():
  made = splits(np.arange(ROWS)).sealed()
  assert made.test is None and not made.train.truth and not made.validation.truth
  bare = without_truth({"train": splits(np.arange(ROWS)).train, "validation": None})
  assert not bare["train"].truth and bare["validation"] is None
