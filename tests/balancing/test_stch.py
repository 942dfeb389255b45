"""STCH: warm-up, nadir, weights as the gradient of the smoothed objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing

from ._helpers import clock

FIRST, SECOND = jnp.array([2.0, 4.0, 1.0]), jnp.array([1.0, 2.0, 0.5])


def run(rule, epochs, losses, **extra):
  state = rule.init({})
  for epoch, now in zip(epochs, losses):
    weights, state = rule.weigh(now, state, None, clock=clock(epoch), **extra)
  return np.asarray(weights), state


def test_warm_up_descends_the_logarithms():
  for epoch in (0, 3, 4):
    weights, _ = run(balancing.stch(3), [epoch], [FIRST])
    np.testing.assert_allclose(weights, 1 / np.asarray(FIRST), rtol=1e-6)


def test_the_nadir_is_the_mean_of_the_averaging_epoch_alone():
  _, state = run(balancing.stch(3, warmup=1), [0, 1, 1, 2], [FIRST * 9, FIRST, SECOND, FIRST])
  np.testing.assert_allclose(state.nadir_sum / state.nadir_count, [1.5, 3.0, 0.75], rtol=1e-6)


def test_later_weights_are_the_gradient_of_the_smoothed_maximum():
  mu, z = 0.7, np.array([1.5, 3.0, 0.75])
  weights, _ = run(balancing.stch(3, mu, warmup=0), [0, 0, 1], [FIRST, SECOND, SECOND])

  def objective(losses):
    return 3 * mu * jax.nn.logsumexp(jnp.log(losses / z) / mu)

  np.testing.assert_allclose(weights, jax.grad(objective)(SECOND), rtol=1e-5)


def test_absent_objectives_are_left_out():
  here = jnp.array([True, True, False])
  rule = balancing.stch(3, warmup=0)
  weights, state = run(rule, [0, 1], [FIRST, SECOND.at[2].set(0.0)], present=here)
  two, _ = run(balancing.stch(2, warmup=0), [0, 1], [FIRST[:2], SECOND[:2]])
  np.testing.assert_allclose(weights, [*two, 0], rtol=1e-6)
  np.testing.assert_array_equal(state.nadir_count, [1, 1, 0])


def test_without_an_averaging_epoch_the_nadir_is_one():
  weights, _ = run(balancing.stch(3, warmup=0), [5], [FIRST])
  np.testing.assert_allclose(weights, 3 / 7, rtol=1e-6)  # mu = 1: K L_k / sum L / L_k


def test_what_is_missing_or_wrong_is_named():
  with pytest.raises(TypeError, match="clock"):
    balancing.stch(3).weigh(FIRST, balancing.stch(3).init({}), None)
  with pytest.raises(ValueError, match="mu"):
    balancing.stch(3, 0.0)
  with pytest.raises(ValueError, match="warmup"):
    balancing.stch(3, warmup=-1)
