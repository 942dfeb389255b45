"""ReconBoost's losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.methods.balancing import _reconboost_losses

Z = jnp.log(jnp.asarray([[0.25, 0.75]]))
EVEN = jnp.zeros((1, 2))
LABEL = jnp.asarray([1])


def test_loss_by_hand():
  # (5 - 1 * 1/2) * -ln(3/4) / 2 classes
  found = _reconboost_losses.reconboost_loss(Z, EVEN, LABEL)
  np.testing.assert_allclose(found, [4.5 * -np.log(0.75) / 2], rtol=1e-5)
  # Against itself: 5 - 3/4
  found = _reconboost_losses.reconboost_loss(Z, Z, LABEL)
  np.testing.assert_allclose(found, [4.25 * -np.log(0.75) / 2], rtol=1e-5)


def test_gradient_is_the_weighted_cross_entropys_and_spares_the_ensemble():
  loss = lambda z, e: _reconboost_losses.reconboost_loss(z, e, LABEL).sum()
  of_z, of_ensemble = jax.grad(loss, (0, 1))(Z, EVEN)
  np.testing.assert_allclose(of_z, [[4.5 / 2 * 0.25, 4.5 / 2 * (0.75 - 1)]], rtol=1e-5)
  np.testing.assert_array_equal(of_ensemble, 0.0)


def test_agreement_carries_a_gradient_only_when_attached():
  rows = _reconboost_losses.agreement_loss(Z, EVEN)
  np.testing.assert_allclose(rows, [1 / 16], rtol=1e-5)
  for attached in (False, True):
    loss = lambda z, p, a=attached: _reconboost_losses.agreement_loss(z, p, attached=a).sum()
    of_z, of_previous = jax.grad(loss, (0, 1))(Z, EVEN)
    assert bool(jnp.any(of_z != 0)) is attached
    assert not jnp.any(of_previous != 0)
