"""Mean fill trains as `joint` does and predicts with means in place of what is absent."""

import jax
import numpy as np

from mmfuse.methods import METHODS

from .. import _small


def test_the_mean_of_the_features_stands_in_for_an_absent_modality():
  method = METHODS["mean_fill"](_small.model(), 0.1)
  batch = _small.batch()
  state, _ = jax.jit(method.phases[0].step)(
    _small.start(method), batch, jax.random.key(1), _small.clock()
  )
  mean = state.stats["fill"]["mean"]
  assert all(np.abs(m).max() > 0 for m in mean.values())
  without = {**batch.mask, "b": np.zeros(_small.BATCH, bool)}
  said = method.predict(state, batch.inputs, without).logits
  means = {**state.stats, "fill": {**state.stats["fill"], "mean": {**mean, "b": 0 * mean["b"]}}}
  zeroed = method.predict(state._replace(stats=means), batch.inputs, without).logits
  kernel = state.params["heads"]["fused"]
  shift = np.asarray(said - zeroed)
  rows = np.asarray(batch.mask["a"])
  assert np.ptp(shift[rows], axis=0).max() < 1e-6  # the same in all rows: mean_b W_b
  assert np.abs(shift[rows]).max() > 1e-4 and kernel
  assert np.abs(shift[~rows]).max(initial=0.0) < 1e-6  # a row that has nothing stays as it is
