"""OPM: what is dropped from the features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives, train
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _opm

from .. import _small

ROWS = 3
MASK = {"a": jnp.ones(ROWS, bool), "b": jnp.asarray([True, True, False])}
FEATURES = {"a": jnp.ones((ROWS, 2)), "b": jnp.ones((ROWS, 6))}


def test_dropping_by_hand():
  rates = {"a": jnp.float32(0.8), "b": jnp.float32(0.0)}
  drawn = {"a": jnp.asarray([True, False, False]), "b": jnp.ones(ROWS, bool)}
  found, mask, weight = _opm.drop_features(FEATURES, MASK, jnp.ones(ROWS), rates, drawn)
  scale = 1 / (1 - 0.2 + 1e-5)  # theta = 2 * .8 / 8
  np.testing.assert_allclose(found["a"][:, 0], [scale, 0, 0], rtol=1e-6)
  np.testing.assert_allclose(found["b"][:, 5], [scale, scale, 0], rtol=1e-6)
  assert mask["a"].tolist() == [True, False, False]
  assert mask["b"].tolist() == [True, True, False]
  assert weight.tolist() == [1, 1, 0]  # the last row lost all it had


def after_step(**options):
  method = METHODS["opm"](_small.model(), 0.1, **options)
  return jax.jit(method.phases[0].step)(
    _small.start(method), _small.batch(), jax.random.key(1), _small.clock()
  )[0]


def test_never_executed_is_the_joint_loss():
  plain = train.supervised(_small.model(), objectives.fused, train.sgd(0.1))
  want, _ = jax.jit(plain.phases[0].step)(
    _small.start(plain), _small.batch(), jax.random.key(1), _small.clock()
  )
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)
  jax.tree.map(close, after_step(p_exe=0.0).params, want.params)
  moved = after_step(p_exe=1.0, q_base=0.9).params
  assert (
    max(float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (moved, want.params)))) > 1e-4
  )


@pytest.mark.parametrize(
  "options, message",
  [
    ({"p_exe": 2}, r"p_exe must lie in \[0, 1\], got 2"),
    ({"q_base": -1}, r"q_base must lie in \[0, 1\], got -1"),
    ({"variant": "x"}, "unknown variant 'x'"),
  ],
)
def test_bad_settings_are_refused_at_the_door(options, message):
  with pytest.raises(ValueError, match=message):
    METHODS["opm"](_small.model(), **options)
