"""The divergence from N(0, 1): values and gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import objectives


def test_by_hand():
  mean, std = np.asarray([[1.0, 0.0], [0.0, 2.0]]), np.asarray([[1.0, 2.0], [0.5, 1.0]])
  want = 0.5 * (std**2 + mean**2 - np.log(std**2) - 1).sum(-1)
  found = objectives.kl_losses(jnp.asarray(mean), jnp.asarray(2 * np.log(std)))
  np.testing.assert_allclose(found, want, rtol=1e-6)


def test_zero_with_a_zero_gradient_at_the_standard_normal_alone():
  zero = jnp.zeros((2, 3))
  loss = lambda mean, std: objectives.kl_losses(mean, 2 * jnp.log(std)).mean()
  value, grads = jax.value_and_grad(loss, (0, 1))(zero, zero + 1)
  assert float(value) == 0.0 and not any(g.any() for g in grads)
  mean, std = zero + 0.3, zero + 0.5
  value, (of_mean, of_std) = jax.value_and_grad(loss, (0, 1))(mean, std)
  assert float(value) > 0
  np.testing.assert_allclose(of_mean, mean / 2, rtol=1e-5)  # mu / B
  np.testing.assert_allclose(of_std, (std - 1 / std) / 2, rtol=1e-5)  # (sigma - 1 / sigma) / B


def test_of_maps_and_in_float32():
  half = jnp.zeros((2, 4, 5, 3), jnp.bfloat16) + 1
  found = objectives.kl_losses(half, half)
  assert found.shape == (2, 4, 5) and found.dtype == jnp.float32
