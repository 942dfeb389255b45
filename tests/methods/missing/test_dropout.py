"""What modality dropout takes from a step, and that it is told by the key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives, train
from mmfuse.methods import METHODS
from mmfuse.methods.missing._dropout import Drop

from .. import _small

ROWS = 4000
WHOLE = {m: jnp.ones(ROWS, bool) for m in "ab"}


def dropped(rate=None, mask=WHOLE):
  batch = _small.batch()._replace(mask=mask)
  features = {m: jnp.ones((ROWS, 2)) for m in mask}
  return Drop(("a", "b"), rate)(features, batch, key=jax.random.key(0), clock=None)


@pytest.mark.parametrize("rate, both", [(None, 1 / 3), (0.5, 1 / 4 + 1 / 4), (0.2, 0.64 + 0.04)])
def test_how_often_a_row_keeps_everything(rate, both):
  features, batch = dropped(rate)
  kept = batch.mask["a"] & batch.mask["b"]
  assert float(kept.mean()) == pytest.approx(both, abs=0.03)
  assert bool((batch.mask["a"] | batch.mask["b"]).all())
  for m in "ab":  # what is dropped is 0, the rest is as it was
    np.testing.assert_array_equal(features[m][:, 0], batch.mask[m].astype(np.float32))


def test_what_a_row_lacks_is_not_given_back():
  _, batch = dropped(mask={**WHOLE, "b": jnp.zeros(ROWS, bool)})
  assert not batch.mask["b"].any() and batch.mask["a"].all()


def params(method, key=1):
  """After one step."""
  state, _ = jax.jit(method.phases[0].step)(
    _small.start(method), _small.batch(), jax.random.key(key), _small.clock()
  )
  return state.params


def apart(a, b):
  return max(float(abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b))))


def test_without_drops_it_is_the_joint_loss_and_the_key_decides():
  plain = params(train.supervised(_small.model(), objectives.fused, train.sgd(0.1)))
  assert apart(params(METHODS["moddrop"](_small.model(), 0.1, drop=0.0)), plain) < 1e-6
  method = METHODS["dropout"](_small.model(), 0.1)
  first = params(method)
  assert apart(first, plain) > 1e-4
  assert apart(first, params(method, key=2)) > 1e-4


def test_a_token_is_trained_by_the_rows_that_lost_its_modality():
  found = params(METHODS["dropout"](_small.model(), 0.1, fill="token"))["fill"]
  assert all(np.abs(token).max() > 0 for token in found.values())


@pytest.mark.parametrize(
  "build, options, message",
  [
    (METHODS["moddrop"], {"drop": 1.0}, r"drop must lie in \[0, 1\), got 1.0"),
    (METHODS["dropout"], {"fill": "x"}, "unknown fill 'x'"),
  ],
)
def test_bad_settings_are_refused_at_the_door(build, options, message):
  with pytest.raises(ValueError, match=message):
    build(_small.model(), **options)
