"""CAGrad: bisection and SLSQP as oracles, limits, optimality, absent objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mmfuse import balancing
from mmfuse.balancing import _cagrad

from ._helpers import apply, conflicting

solve = jax.jit(_cagrad.cagrad_weights, static_argnames="rescale")


def objective(a, w, c):
  num = len(a)
  radius = c * np.sqrt(a.mean() + 1e-8) + 1e-8
  return w @ a @ np.full(num, 1 / num) + radius * np.sqrt(w @ a @ w + 1e-8)


def slsqp(a, c):
  num = len(a)
  found = minimize(
    lambda w: objective(a, w, c),
    np.full(num, 1 / num),
    bounds=[(0, 1)] * num,
    constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    method="SLSQP",
    options={"ftol": 1e-14, "maxiter": 500},
  )
  return found.x


def bisection(a, c):
  """60 halvings of [0, 1] on the sign of the derivative, K = 2."""

  def slope(t, h=1e-6):
    w = lambda t: np.array([t, 1 - t])
    return objective(a, w(t + h), c) - objective(a, w(t - h), c)

  low, high = 0.0, 1.0
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (low, middle) if slope(middle) > 0 else (middle, high)
  return np.array([low, 1 - low])


@pytest.mark.parametrize("seed", range(4))
def test_two_objectives_against_bisection(seed):
  grads = conflicting(seed, 2).astype(np.float64)
  a = grads @ grads.T
  np.testing.assert_allclose(
    solve(jnp.asarray(a, jnp.float32), 0.5)[0], bisection(a, 0.5), atol=1e-3
  )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num", [3, 5])
def test_against_slsqp(seed, num):
  grads = conflicting(seed, num).astype(np.float64)
  a, c = grads @ grads.T, (0.2, 0.5, 0.9)[seed % 3]
  weights = np.asarray(solve(jnp.asarray(a, jnp.float32), c)[0], np.float64)
  oracle = slsqp(a, c)
  assert objective(a, weights, c) <= objective(a, oracle, c) * (1 + 1e-6) + 1e-6
  combined, wanted = weights @ grads, oracle @ grads
  assert np.linalg.norm(combined - wanted) <= 2e-3 * np.linalg.norm(wanted)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_duality_gap_closes(scale):
  """Convex: at the optimum every coordinate with weight has the smallest slope."""
  grads = conflicting(7, 4, scale=scale)
  a, c = jnp.asarray(grads @ grads.T), 0.5
  weights = solve(a, c)[0]
  mean = jnp.full(4, 0.25)
  radius = c * jnp.sqrt(mean @ a @ mean + 1e-8) + 1e-8
  slope = np.asarray(a @ mean + radius * (a @ weights) / jnp.sqrt(weights @ a @ weights + 1e-8))
  gap = slope @ np.asarray(weights) - slope.min()
  assert gap <= 1e-5 * np.abs(slope).max()


def test_c_zero_is_the_mean():
  grads = conflicting(0, 3)
  np.testing.assert_allclose(
    apply(balancing.cagrad(3, 0.0), grads)[0], grads.mean(0), rtol=1e-4, atol=1e-5
  )


def test_the_direction_stays_within_c_of_the_mean():
  grads = conflicting(2, 3)
  mean = grads.mean(0)
  direction, _ = apply(balancing.cagrad(3, 0.4, rescale=0), grads)
  np.testing.assert_allclose(
    np.linalg.norm(direction - mean), 0.4 * np.linalg.norm(mean), rtol=1e-3
  )
  assert (grads @ direction).min() >= (grads @ mean).min()


def test_rescale():
  grads = conflicting(0, 3)
  plain, _ = apply(balancing.cagrad(3, 0.5, rescale=0), grads)
  for rescale, factor in ((1, 1 / 1.25), (2, 1 / 1.5), ("sum", 3 / 1.25)):
    direction, _ = apply(balancing.cagrad(3, 0.5, rescale=rescale), grads)
    np.testing.assert_allclose(direction, plain * factor, rtol=1e-4)


def test_permutation_and_identical_gradients():
  grads = conflicting(4, 3)
  direction, _ = apply(balancing.cagrad(3), grads)
  np.testing.assert_allclose(
    apply(balancing.cagrad(3), grads[[2, 0, 1]])[0], direction, rtol=1e-3, atol=1e-4
  )
  same = np.tile(grads[:1], (3, 1))
  np.testing.assert_allclose(apply(balancing.cagrad(3, rescale=2), same)[0], grads[0], rtol=1e-3)


def test_absent_objectives_are_left_out():
  grads, here = conflicting(0, 3), jnp.array([True, False, True])
  direction, state = apply(balancing.cagrad(3), grads, present=here)
  two, _ = apply(balancing.cagrad(2), grads[[0, 2]])
  np.testing.assert_allclose(direction, two, rtol=1e-4, atol=1e-5)
  assert state.weights[1] == 0


def test_bad_knobs_are_refused():
  with pytest.raises(ValueError, match="c must be at least 0"):
    balancing.cagrad(3, -0.1)
  with pytest.raises(ValueError, match="rescale must be one of 0, 1, 2, sum"):
    balancing.cagrad(3, rescale=3)
