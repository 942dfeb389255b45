"""The pieces that builders share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import fusion, objectives, train
from mmfuse.core import Unavailable
from mmfuse.methods.balancing import _hooks

from . import _small


@dataclasses.dataclass(frozen=True)
class _Label:
  def __call__(self, state, batch):
    return {"label": batch.label + state.memory["add"], "weight": batch.weight}


@pytest.mark.parametrize("size", [5, 48, 512])
def test_over_split_keeps_the_order_and_drops_the_padding(size):
  split = _small.splits().train
  state = _small.start(train.supervised(_small.model(), objectives.fused))
  state = state._replace(memory={"add": jnp.int32(10)})
  found = train.over_split(_Label(), state, split, batch_size=size)
  np.testing.assert_array_equal(found["label"], split.label + 10)
  np.testing.assert_array_equal(found["weight"], 1.0)
  rows = np.array([7, 3, 3])
  found = train.over_split(_Label(), state, split, rows, batch_size=2)
  np.testing.assert_array_equal(found["label"], split.label[rows] + 10)


def test_padded_batches_mark_the_padding():
  batches = list(_small.splits().train.batches(3, np.arange(5)))
  assert [b.weight.tolist() for b in batches] == [[1, 1, 1], [1, 1, 0]]
  assert [b.index.tolist() for b in batches] == [[0, 1, 2], [3, 4, 3]]


def test_then_joins_states_and_keeps_who_predicts():
  first = train.supervised(
    _small.model(), objectives.unimodal, predict=fusion.mean_logits, name="teacher"
  )
  second = train.supervised(_small.model(), objectives.fused)
  both = train.then(first, second)
  state = _small.start(both)
  assert sorted(state.opt) == ["teacher", "train"]
  assert sorted(state.memory) == ["objective", "objective/teacher"]
  assert both.predict == second.predict and both.phases[0].predict == first.predict


def test_validation_is_asked_for():
  with pytest.raises(Unavailable, match="lfm needs a validation split"):
    train.validation_of({"train": 1, "validation": None}, "lfm")


def test_generator_depends_on_the_key_alone():
  draw = lambda seed: _hooks.generator(jax.random.key(seed)).integers(1 << 30)
  assert draw(1) == draw(1) != draw(2)


def test_outputs_of_is_the_methods_prediction():
  method = train.supervised(_small.model(), objectives.fused)
  state, given = _small.start(method), _small.batch()
  mine = train.outputs_of(_small.model(), train.weights_of(state), given.inputs, given.mask)
  np.testing.assert_allclose(mine.logits, method.predict(state, given.inputs, given.mask).logits)
