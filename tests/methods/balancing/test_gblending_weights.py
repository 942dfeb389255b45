"""G-Blending's weights: by hand, their optimality, their guards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.balancing._gblending_weights import gblending_weights


def test_weights_by_hand():
  blend = gblending_weights([2.0, 2.0], [2.0, 2.0], [1.0, 1.5], [1.5, 1.75])
  np.testing.assert_allclose(blend.gain, [0.5, 0.25], rtol=1e-6)
  np.testing.assert_allclose(blend.overfitting, [0.5, 0.25], rtol=1e-6)
  np.testing.assert_allclose(blend.weights, [1 / 3, 2 / 3], rtol=1e-6)


def test_weights_minimise_overfitting_over_generalisation():
  """(\\sum w^2 O^2) / (\\sum w G)^2, independent overfitting, is stationary."""
  rng = np.random.default_rng(1)
  train0, val0 = rng.uniform(1.5, 2.0, (2, 4))
  blend = gblending_weights(
    train0, val0, train0 - rng.uniform(0.3, 0.9, 4), val0 - rng.uniform(0.1, 0.5, 4)
  )

  def ratio(w):
    return jnp.sum((w * blend.overfitting) ** 2) / jnp.sum(w * blend.gain) ** 2

  slope = jax.grad(ratio)(blend.weights)
  np.testing.assert_allclose(slope, np.zeros(4), atol=1e-4 * float(ratio(blend.weights)))


def test_guards():
  worse = gblending_weights([2.0, 2.0], [2.0, 2.0], [1.0, 1.0], [1.5, 2.5])
  np.testing.assert_array_equal(worse.weights, [1, 0])
  np.testing.assert_allclose(
    gblending_weights([2, 2], [2, 2], [1, 1], [1.5, 2.5], variant="released").weights,
    [0.9, 0.1],  # .5 / .5^2 and .5 / 1.5^2
    rtol=1e-5,
  )
  both = gblending_weights([2.0, 2.0], [2.0, 2.0], [1.0, 1.0], [2.5, 2.5])
  np.testing.assert_array_equal(both.weights, [0.5, 0.5])
  pure = gblending_weights([2.0, 2.0], [2.0, 2.0], [1.5, 1.0], [1.5, 1.5])  # O = 0
  np.testing.assert_allclose(pure.weights, [1, 0], atol=1e-6)
  with pytest.raises(ValueError, match="one length K"):
    gblending_weights([2.0], [2.0, 2.0], [1.0, 1.0], [1.5, 1.5])
  with pytest.raises(ValueError, match="variant"):
    gblending_weights([2.0], [2.0], [1.0], [1.5], variant="code")
