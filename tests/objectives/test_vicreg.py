"""VICReg: by hand, its invariances, and rows that do not count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(7, 3)).astype(np.float32) for _ in range(2))
TERMS = ({"std": 0.0, "cov": 0.0}, {"sim": 0.0, "cov": 0.0}, {"sim": 0.0, "std": 0.0})


@functools.partial(jax.jit, static_argnames=("sim", "std", "cov"))
def _compiled(x, y, weight, **options):
  return objectives.vicreg_loss(x, y, weight, **options)


def loss(x, y, weight=None, **options):
  return float(_compiled(jnp.asarray(x), jnp.asarray(y), weight, **options))


def test_two_rows_by_hand():
  x, y = np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
  # Squares 0, 1, 0, 1. Variances 1/2 and 2; 1/2 and 0. Covariance of x: .5 * 2 = 1, twice, over D = 2.
  assert loss(x, y, std=0, cov=0, sim=1) == pytest.approx(0.5)
  short = 1 - np.sqrt(0.5 + 1e-4)
  want = (short / 2 + (short + 1 - np.sqrt(1e-4)) / 2) / 2
  assert loss(x, y, sim=0, cov=0, std=1) == pytest.approx(want, rel=1e-5)
  assert loss(x, y, sim=0, std=0, cov=1) == pytest.approx(1.0)


def test_it_is_symmetric_and_blind_to_order_and_to_a_common_shift():
  order = RNG.permutation(7)
  for options in TERMS:
    value = loss(X, Y, **options)
    assert loss(Y, X, **options) == pytest.approx(value, rel=1e-5)
    assert loss(X[order], Y[order], **options) == pytest.approx(value, rel=1e-5)
    assert loss(X + 2, Y + 2, **options) == pytest.approx(value, rel=1e-4)


def test_it_is_zero_where_equal_embeddings_vary_enough_and_independently():
  x = 3 * np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
  assert loss(x, x) == 0.0


def test_a_constant_batch_is_finite():
  run = jax.jit(jax.value_and_grad(objectives.vicreg_loss))
  value, grads = run(jnp.ones((5, 4)), jnp.ones((5, 4)))
  assert float(value) == pytest.approx(25 * (1 - 0.01), rel=1e-5)
  assert not np.any(grads)


@pytest.mark.parametrize("options", TERMS)
def test_rows_that_do_not_count_are_not_read(options):
  weight = jnp.array([1.0, 0, 1, 1, 0, 1, 0])
  kept = np.asarray(weight) > 0
  x = jnp.where(kept[:, None], X, jnp.nan)
  run = lambda x: objectives.vicreg_loss(x, jnp.asarray(Y), weight, **options)
  value, grads = jax.jit(jax.value_and_grad(run))(x)
  alone = lambda x: objectives.vicreg_loss(x, jnp.asarray(Y[kept]), **options)
  few, own = jax.jit(jax.value_and_grad(alone))(jnp.asarray(X[kept]))
  np.testing.assert_allclose(value, few, rtol=1e-5)
  np.testing.assert_allclose(np.asarray(grads)[kept], own, atol=1e-5)
  assert not np.any(np.asarray(grads)[~kept])
  assert loss(X, Y, 3 * weight, **options) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("weight", [[0.0, 0, 0], [0, 2, 0]])
def test_fewer_than_two_rows_give_nothing(weight):
  run = lambda x: objectives.vicreg_loss(x, jnp.asarray(Y[:3]), jnp.asarray(weight))
  value, grads = jax.jit(jax.value_and_grad(run))(jnp.asarray(X[:3]))
  assert float(value) == 0 and not np.any(grads)
  assert loss(X[:1], Y[:1]) == 0


def test_a_bool_weight_is_a_choice_of_rows_and_shapes_must_agree():
  chosen = jnp.arange(7) < 4
  assert loss(X, Y, chosen) == pytest.approx(loss(X[:4], Y[:4]), rel=1e-5)
  with pytest.raises(ValueError, match=r"two \[B, D\] of one shape, got \[7, 3\] and \[7, 2\]"):
    loss(X, Y[:, :2])


def test_of_one_embedding_it_is_half_of_vicreg_without_invariance():
  alone = jax.jit(objectives.variance_covariance_loss)
  both = float(alone(jnp.asarray(X), std=3.0, cov=2.0) + alone(jnp.asarray(Y), std=3.0, cov=2.0))
  assert loss(X, Y, sim=0.0, std=6.0, cov=2.0) == pytest.approx(both, rel=1e-5)
  assert float(alone(jnp.ones((5, 4)), std=5.0)) == pytest.approx(5 * (1 - 0.01), rel=1e-6)
  spread = 3 * jnp.asarray([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
  assert float(alone(spread)) == 0.0
  with pytest.raises(ValueError, match=r"takes \[B, D\], got \[3\]"):
    objectives.variance_covariance_loss(jnp.ones(3))
