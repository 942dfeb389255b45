"""MIMO: hand-computed weights, the two routes, limits, schedules, absent modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse import balancing
from mmfuse.balancing import _mimo

from ._helpers import apply, clock

LOSSES = jnp.array([0.5, 1.0, 2.0])


def weigh(rule, losses=LOSSES, **extra):
  return np.asarray(rule.weigh(losses, rule.init({}), None, **extra)[0])


def test_weights_by_hand():
  e = np.exp(-1.0)
  np.testing.assert_allclose(
    weigh(balancing.mimo(3, 2.0, 1.0)), [1, 2 * e / (1 + e), 2 / (1 + e)], rtol=1e-6
  )


def test_objective_by_hand():
  want = 0.5 + 2.0 * 0.5 * np.log(np.exp(1.0 / 0.5) + np.exp(2.0 / 0.5))
  np.testing.assert_allclose(_mimo.mimo_objective(LOSSES, 2.0, 0.5), want, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 5), st.floats(0.05, 5))
def test_gradient_of_the_objective_is_the_weights(seed, lam, mu):
  losses = jnp.asarray(np.random.default_rng(seed).uniform(0, 3, 4), jnp.float32)
  grad = jax.grad(_mimo.mimo_objective)(losses, lam, mu)
  np.testing.assert_allclose(weigh(balancing.mimo(4, lam, mu), losses), grad, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 5))
def test_smoothed_maximum_is_bounded(seed, mu):
  losses = jnp.asarray(np.random.default_rng(seed).uniform(0, 3, 4), jnp.float32).at[0].set(0.0)
  smooth, top = float(_mimo.mimo_objective(losses, 1.0, mu)), float(losses.max())
  assert top - 1e-5 <= smooth <= top + mu * np.log(3) + 1e-5


def test_weights_on_the_simplex_and_permutation_equivariant():
  weights = weigh(balancing.mimo(4, 1.0, 0.3), jnp.array([0.1, 0.7, 1.3, 0.9]))
  swapped = weigh(balancing.mimo(4, 1.0, 0.3), jnp.array([0.1, 0.9, 0.7, 1.3]))
  np.testing.assert_allclose(weights[1:].sum(), 1.0, rtol=1e-6)
  np.testing.assert_allclose(swapped[1:], weights[[3, 1, 2]], rtol=1e-6)


def test_a_common_constant_changes_nothing_a_scale_does():
  rule = balancing.mimo(3, 1.0, 0.3)
  np.testing.assert_allclose(weigh(rule, LOSSES + 1.0), weigh(rule), rtol=1e-5)
  assert abs(weigh(rule, LOSSES * 2) - weigh(rule)).max() > 0.01


def test_lam_zero_is_the_fused_loss_bit_by_bit():
  grads = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  direction, _ = apply(balancing.mimo(3, 0.0), grads, losses=LOSSES)
  np.testing.assert_array_equal(direction, grads[0])


def test_limits_of_mu():
  np.testing.assert_allclose(weigh(balancing.mimo(3, 1.0, 1e4)), [1, 0.5, 0.5], rtol=1e-3)
  np.testing.assert_array_equal(weigh(balancing.mimo(3, 1.0, 1e-3)), [1, 0, 1])
  np.testing.assert_array_equal(weigh(balancing.mimo(3, form="hard_max")), [1, 0, 1])
  tie = jnp.array([0.5, 2.0, 2.0])
  np.testing.assert_array_equal(weigh(balancing.mimo(3, form="hard_max"), tie), [1, 0.5, 0.5])
  np.testing.assert_array_equal(weigh(balancing.mimo(3), tie), [1, 0.5, 0.5])


def test_huge_losses_do_not_overflow():
  losses = jnp.array([1.0, 1e3, 990.0])
  np.testing.assert_array_equal(weigh(balancing.mimo(3, 1.0, 1e-3), losses), [1, 1, 0])
  np.testing.assert_allclose(_mimo.mimo_objective(losses, 1.0, 1e-3), 1001.0, rtol=1e-6)


def test_one_modality_and_none():
  np.testing.assert_array_equal(weigh(balancing.mimo(2, 0.7), LOSSES[:2]), np.float32([1, 0.7]))
  np.testing.assert_array_equal(weigh(balancing.mimo(1, 0.7), LOSSES[:1]), [1])


def test_normalize_divides_by_one_plus_lam():
  np.testing.assert_allclose(
    weigh(balancing.mimo(3, 3.0, normalize=True)), weigh(balancing.mimo(3, 3.0)) / 4, rtol=1e-6
  )


def test_absent_modalities_get_nothing():
  here = jnp.array([True, False, True])
  np.testing.assert_array_equal(weigh(balancing.mimo(3), present=here), [1, 0, 1])
  alone = jnp.array([True, False, False])
  np.testing.assert_array_equal(weigh(balancing.mimo(3), present=alone), [1, 0, 0])
  grad = jax.grad(lambda f: _mimo.mimo_objective(f, present=here))(LOSSES)
  np.testing.assert_array_equal(grad, [1, 0, 1])


def test_schedules_follow_the_clock_or_the_own_count():
  rule = balancing.mimo(2, lam=lambda step: 1.0 + step, mu=1.0)
  assert weigh(rule, LOSSES[:2], clock=clock(step=5))[1] == 6.0
  state, seen = rule.init({}), []
  for _ in range(3):
    weights, state = rule.weigh(LOSSES[:2], state, None)
    seen.append(float(weights[1]))
  assert seen == [1.0, 2.0, 3.0]


def test_bad_knobs_are_refused():
  with pytest.raises(ValueError, match="lam must be at least 0, got -1"):
    balancing.mimo(3, -1)
  with pytest.raises(ValueError, match="mu must be positive, got 0"):
    balancing.mimo(3, 1.0, 0)
  with pytest.raises(ValueError, match="form must be one of lse, hard_max"):
    balancing.mimo(3, form="max")
  with pytest.raises(ValueError, match="at least 1, got 0"):
    balancing.mimo(0)
  with pytest.raises(TypeError, match="whole number"):
    balancing.mimo(2.5)
