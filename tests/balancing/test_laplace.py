"""Laplace posterior and Monte-Carlo moments: autodiff and limits as oracles."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.balancing import _laplace

RNG = np.random.default_rng(0)
H = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, 3, 6))
W = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)


def energy(flat, gamma):
  logits = jnp.concatenate([H, jnp.ones((6, 1))], 1) @ flat.reshape(3, 4).T
  nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), Y[:, None], 1).sum()
  return nll + 0.5 * flat @ flat / gamma


def test_precision_is_the_hessian_and_the_mean_a_newton_step():
  mean, cov = jax.jit(_laplace.laplace_posterior)(W, H, Y, prior_variance=0.5)
  flat = W.reshape(-1)
  hessian, slope = jax.hessian(energy)(flat, 0.5), jax.grad(energy)(flat, 0.5)
  np.testing.assert_allclose(jnp.linalg.inv(cov), hessian, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(mean, flat - jnp.linalg.solve(hessian, slope), rtol=1e-3, atol=1e-4)
  np.testing.assert_array_equal(cov, cov.T)
  assert np.linalg.eigvalsh(np.asarray(cov)).min() > 0


def test_a_given_prior_replaces_the_default():
  m = jnp.arange(12.0) / 10
  mean, cov = _laplace.laplace_posterior(W, H, Y, prior_mean=m, prior_precision=jnp.eye(12) * 1e6)
  np.testing.assert_allclose(mean, m, atol=1e-4)
  np.testing.assert_allclose(jnp.diagonal(cov), 1e-6, rtol=1e-2)


def test_a_tight_prior_collapses_the_gradient_distribution():
  mean, cov = _laplace.laplace_posterior(W, H, Y, prior_variance=1e-8)
  _, var, _ = _laplace.gradient_moments(
    mean, cov, H, Y, jnp.asarray(RNG.normal(size=(16, 12)), jnp.float32)
  )
  np.testing.assert_allclose(mean, 0.0, atol=1e-5)
  np.testing.assert_allclose(var, 1e-8, rtol=0.5)


def test_moments_of_a_known_layer():
  """Zero covariance: the gradient of the row's cross-entropy by its features."""
  flat, none = W.reshape(-1), jnp.eye(12) * 1e-14
  mean, _, loss = _laplace.gradient_moments(flat, none, H, Y, jnp.ones((4, 12)))

  def nll(h, y):
    return -jax.nn.log_softmax(W @ jnp.append(h, 1.0))[y]

  np.testing.assert_allclose(mean, jax.vmap(jax.grad(nll))(H, Y), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(loss, jax.vmap(nll)(H, Y).mean(), rtol=1e-4)


def test_monte_carlo_error_shrinks_with_the_draws():
  mean, cov = _laplace.laplace_posterior(W, H, Y, prior_variance=0.5)
  normals = jnp.asarray(RNG.normal(size=(4096, 12)), jnp.float32)
  reference = _laplace.gradient_moments(mean, cov, H, Y, normals)[0]

  def error(size, start):
    got = _laplace.gradient_moments(mean, cov, H, Y, normals[start : start + size])[0]
    return float(jnp.abs(got - reference).mean())

  few = np.mean([error(16, 16 * i) for i in range(8)])
  many = np.mean([error(256, 256 * i) for i in range(8)])
  assert many < few / 2  # 1 / sqrt(16) in expectation


def test_power_flattens_the_variance():
  mean, cov = _laplace.laplace_posterior(W, H, Y, prior_variance=0.5)
  normals = jnp.asarray(RNG.normal(size=(16, 12)), jnp.float32)
  _, plain, _ = _laplace.gradient_moments(mean, cov, H, Y, normals)
  _, flat, _ = _laplace.gradient_moments(mean, cov, H, Y, normals, power=0.5)
  np.testing.assert_allclose(flat, jnp.sqrt(plain), rtol=1e-5)


def test_precision_weighting_by_hand():
  mean, var = (
    jnp.array([[[1.0], [4.0]], [[0.0], [3.0]]]),
    jnp.array([[[1.0], [0.5]], [[1.0], [1.0]]]),
  )
  np.testing.assert_allclose(_laplace.precision_weighted(mean, var), [[1.5], [0.75]], rtol=1e-6)
