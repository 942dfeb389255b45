"""The loss of deep CCA, where the canonical correlations are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.objectives._cca import cca_loss

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3])
def test_a_linear_map_is_fully_correlated(k):
  y = X @ np.array([[2.0, 0, 1], [0, 1, 0], [1, 0, 3]], np.float32) + 5
  assert cca_loss(jnp.asarray(X), jnp.asarray(y), k=k) == pytest.approx(-k, rel=5e-3)


def test_correlations_of_one_unit_by_hand():
  x, y = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[1.0], [3.0], [2.0]])
  # Variances 1 and 1, covariance 0.5.
  assert cca_loss(x, y, k=1, ridge=0.0) == pytest.approx(-0.5, rel=1e-5)
  assert cca_loss(x, y, k=1, ridge=1.0) == pytest.approx(-np.sqrt(0.25**2 + 1), rel=1e-5)


def test_rows_without_both_do_not_count():
  y = X[:, ::-1] + RNG.normal(size=X.shape).astype(np.float32)
  present = np.arange(40) < 25
  garbage = jnp.where(jnp.asarray(present)[:, None], jnp.asarray(y), jnp.nan)
  loss = lambda y: cca_loss(jnp.asarray(X), y, jnp.asarray(present), k=2)
  some, grads = jax.jit(jax.value_and_grad(loss))(garbage)
  few = cca_loss(jnp.asarray(X[:25]), jnp.asarray(y[:25]), k=2)
  np.testing.assert_allclose(some, few, rtol=1e-5)
  assert np.isfinite(grads).all() and not np.any(grads[25:]) and np.any(grads[:25])


@pytest.mark.parametrize(
  "y,k,sentence",
  [
    (X[:, :2], 1, r"two \[B, D\] of one shape, got \[40, 3\] and \[40, 2\]"),
    (X, 4, r"k must lie in 1..3 \(the width\), got 4"),
  ],
)
def test_wrong_arguments_are_refused(y, k, sentence):
  with pytest.raises(ValueError, match=sentence):
    cca_loss(jnp.asarray(X), jnp.asarray(y), k=k)
