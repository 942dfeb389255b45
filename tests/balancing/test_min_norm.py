"""The simplex solvers: closed forms, optimality, ties, absent objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse.balancing import _min_norm
from mmfuse.balancing._min_norm import min_norm_pair, project_simplex

from ._helpers import conflicting

solve = jax.jit(_min_norm.min_norm, static_argnames="clip_ends")


def gram(grads):
  grads = np.asarray(grads, np.float64)
  return jnp.asarray(grads @ grads.T, jnp.float32)


def test_two_orthogonal_gradients():
  np.testing.assert_allclose(solve(gram([[2, 0], [0, 1]])), [0.2, 0.8], rtol=1e-6)


def test_the_shorter_of_two_parallel_gradients_wins():
  np.testing.assert_array_equal(solve(gram([[2, 0], [1, 0]])), [0, 1])
  np.testing.assert_array_equal(solve(gram([[1, 0], [2, 0]])), [1, 0])
  np.testing.assert_allclose(
    solve(gram([[1, 0], [2, 0]]), clip_ends=True), [0.999, 0.001], atol=1e-6
  )


def test_pair_on_a_known_triangle():
  np.testing.assert_allclose(min_norm_pair(1.0, -0.5, 1.0), 0.5, rtol=1e-6)
  np.testing.assert_allclose(min_norm_pair(4.0, 0.0, 1.0), 0.2, rtol=1e-6)


def test_three_orthogonal_gradients_weigh_by_inverse_square():
  want = np.array([1, 1 / 4, 1 / 9])
  np.testing.assert_allclose(solve(gram(np.diag([1.0, 2.0, 3.0]))), want / want.sum(), rtol=1e-4)


def test_equal_gradients_share_equally():
  np.testing.assert_allclose(solve(jnp.ones((3, 3))), np.full(3, 1 / 3), rtol=1e-6)


def test_a_zero_gradient_takes_all_the_weight():
  weights = solve(gram([[1, 0], [0, 1], [0, 0]]))
  np.testing.assert_allclose(weights, [0, 0, 1], atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 3, 5]), st.sampled_from([0.01, 1.0, 30.0]))
def test_optimality(seed, num, scale):
  """A w >= w^T A w in every coordinate is exactly optimality on the simplex."""
  a = gram(conflicting(seed, num, scale=scale))
  weights = np.asarray(solve(a), np.float64)
  a = np.asarray(a, np.float64)
  assert (weights >= 0).all() and abs(weights.sum() - 1) < 1e-5
  assert (a @ weights).min() >= weights @ a @ weights - 1e-5 * a.max()


def test_the_released_solver_comes_close_to_the_optimum():
  a = gram(conflicting(3, 4))
  exact, released = solve(a), solve(a, clip_ends=True)
  assert float(released @ a @ released) <= float(exact @ a @ exact) * 1.001
  np.testing.assert_allclose(released.sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("clip_ends", [False, True])
def test_absent_objectives_are_left_out(clip_ends):
  grads = conflicting(1, 3)
  a = gram(np.insert(grads, 1, 0.0, axis=0))
  here = jnp.array([True, False, True, True])
  want = np.insert(np.asarray(solve(gram(grads), clip_ends=clip_ends)), 1, 0.0)
  np.testing.assert_allclose(solve(a, here, clip_ends=clip_ends), want, atol=2e-5)
  one = jnp.array([False, False, True, False])
  np.testing.assert_allclose(solve(a, one, clip_ends=clip_ends), [0, 0, 1, 0], atol=1e-6)
  np.testing.assert_array_equal(solve(a, jnp.zeros(4, bool), clip_ends=clip_ends), np.zeros(4))


def test_projection_on_the_simplex():
  np.testing.assert_allclose(
    project_simplex(jnp.array([0.2, 0.3, 0.5])), [0.2, 0.3, 0.5], atol=1e-6
  )
  np.testing.assert_allclose(project_simplex(jnp.array([2.0, 0.0, -1.0])), [1, 0, 0], atol=1e-6)
  np.testing.assert_allclose(project_simplex(jnp.array([0.7, 0.7])), [0.5, 0.5], atol=1e-6)
