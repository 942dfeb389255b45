"""G-Blending: probes, their measurements, and what training starts from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives, train
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _gblending
from mmfuse.methods.balancing import _gblending_weights as rule

from .. import _small

KEY = jax.random.key(3)


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def changed(a, b):
  return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_probe_moves_copies_and_its_losses_make_the_weights():
  method = METHODS["gblending"](_small.model(), 0.3)
  probe, main = method.phases
  assert [(p.name, p.share) for p in method.phases] == [("probe", 0.3), ("train", 0.7)]
  first = _small.start(method)
  begun = probe.begin(first, _small.hooks(), KEY, _small.hour())
  ends = np.asarray(begun.memory["losses"])
  assert ends.shape == (2, 3)
  step = jax.jit(probe.step)
  state = begun
  for i in range(3):
    before = state.memory
    state, log = step(state, _small.batch(), jax.random.fold_in(KEY, i), _small.clock(0, i))
    assert bool(log["finite"]) and float(log["loss/total"]) > 0
    moved = [changed(before[c]["params"], state.memory[c]["params"]) for c in ("joint", "alone")]
    assert moved == [i % 2 == 0, i % 2 == 1]
  same(state.params, first.params)
  # The copy of the fused loss leaves nothing alone; that of the own losses leaves the fused head.
  same(state.memory["alone"]["params"]["heads"]["fused"], first.params["heads"]["fused"])
  for copy in ("joint", "alone"):
    assert changed(state.memory[copy]["params"]["a"], first.params["a"])
  after = probe.epoch_end(state, _small.hooks(), KEY, _small.hour())
  split = _small.splits()
  now = [_gblending.measure(_small.model(), state, s) for s in (split.train, split.validation)]
  want = rule.gblending_weights(ends[0], ends[1], now[0], now[1]).weights
  np.testing.assert_allclose(after.opt["train"]["aggregator"].weights, want, rtol=1e-5)
  np.testing.assert_allclose(float(want.sum()), 1.0, rtol=1e-5)
  assert main.begin is None and main.epoch_end is None


def test_one_copy_for_all_modalities_is_a_copy_for_each():
  """The copy of the own losses moves encoder a as a model of a alone does."""
  method = METHODS["gblending"](_small.model(), 0.3)
  begun = _small.start(method)
  state, _ = jax.jit(method.phases[0].step)(begun, _small.batch(), KEY, _small.clock(0, 1))
  alone = train.supervised(_small.model().restrict("a"), objectives.unimodal, train.sgd(0.3))
  only, _ = jax.jit(alone.phases[0].step)(
    train.initial(alone, jax.random.key(0), _small.batch()), _small.batch(), KEY, _small.clock(0, 1)
  )
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, state.memory["alone"]["params"]["a"], only.params["a"])


def test_measure_counts_rows_that_have_the_modality():
  method = METHODS["gblending"](_small.model())
  state = _small.start(method)
  split = _small.splits().train
  given = jax.tree.map(jnp.asarray, train.to_batch(split))
  outputs = method.predict(state, given.inputs, given.mask)
  want = list(objectives.fused_and_unimodal(outputs, given).values())
  np.testing.assert_allclose(_gblending.measure(_small.model(), state, split), want, rtol=1e-5)


def test_online_alternates():
  method = METHODS["gblending"](_small.model(), 0.3, online=True, super_epoch=2)
  (phase,) = method.phases
  state = phase.begin(_small.start(method), _small.hooks(), KEY, _small.hour())
  step = jax.jit(phase.step)
  moves = []
  for epoch in range(3):
    new, log = step(state, _small.batch(), KEY, _small.clock(epoch, batches=2))
    assert bool(log["finite"])
    moves.append(
      (changed(new.params, state.params), changed(new.memory["joint"], state.memory["joint"]))
    )
    want = new.opt["train"]["aggregator"].weights
    if epoch % 2 == 0:
      split, (train0, val0) = _small.splits(), new.memory["losses"]
      ends = [_gblending.measure(_small.model(), new, s) for s in (split.train, split.validation)]
      want = rule.gblending_weights(train0, val0, *ends).weights
    state = phase.epoch_end(new, _small.hooks(), KEY, _small.hour(epoch + 1))
    np.testing.assert_allclose(state.opt["train"]["aggregator"].weights, want, rtol=1e-5)
    if epoch == 1:  # the next probe starts from where training is
      same(state.memory["joint"]["params"], state.params)
  assert moves == [(False, True), (True, False), (False, True)]


def test_refusals():
  with pytest.raises(ValueError, match="super_epoch must be at least 2"):
    METHODS["gblending"](_small.model(), super_epoch=1)
  with pytest.raises(ValueError, match="variant"):
    METHODS["gblending"](_small.model(), variant="x")
  method = METHODS["gblending"](_small.model())
  with pytest.raises(Unavailable, match="needs a validation split"):
    hooks = {**_small.hooks(), "validation": None}
    method.phases[0].begin(_small.start(method), hooks, KEY, _small.hour())
