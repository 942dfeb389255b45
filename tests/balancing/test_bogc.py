"""BOGC: evidence weights, sequential Dempster fusion as oracle, variances by parts and EMA."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse import balancing
from mmfuse.balancing import _bogc

from ._helpers import apply, late_fusion, params_of


def dempster(evidence):
  """The reduced rule of combination, one one-sided opinion after the other; evidence [K]."""
  num = len(evidence)

  def opinion(k):
    return np.eye(num)[k] * evidence[k] / (evidence[k] + num), num / (evidence[k] + num)

  b, u = opinion(0)
  for k in range(1, num):
    b2, u2 = opinion(k)
    conflict = b.sum() * b2.sum() - b @ b2
    b, u = (b * b2 + b * u2 + b2 * u) / (1 - conflict), u * u2 / (1 - conflict)
  return b, u


fuse = jax.jit(_bogc.fuse_opinions)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 3, 6]))
def test_closed_form_equals_sequential_fusion(seed, num):
  e = np.random.default_rng(seed).exponential(3.0, num)
  b, u = map(np.asarray, fuse(e.astype(np.float32)[:, None]))
  want_b, want_u = dempster(e)
  np.testing.assert_allclose(b[:, 0], want_b, rtol=1e-4)
  np.testing.assert_allclose(u[0], want_u, rtol=1e-4)
  np.testing.assert_allclose(b.sum() + u[0], 1.0, rtol=1e-5)


def test_weights_by_hand():
  var = jnp.array([[0.5], [0.25]])  # e = 2, 4, K = 2
  np.testing.assert_allclose(_bogc.evidence_weights(var)[:, 0], [3 / 8, 5 / 8], rtol=1e-6)
  np.testing.assert_allclose(
    _bogc.evidence_weights(var, mode="belief")[:, 0], [1 / 3, 2 / 3], rtol=1e-6
  )
  np.testing.assert_allclose(
    _bogc.evidence_weights(var, mode="single")[:, 0], [2.5 / 7, 4.5 / 7], rtol=1e-6
  )
  np.testing.assert_allclose(
    _bogc.evidence_weights(var, evidence_scale=0.5)[:, 0], [2 / 5, 3 / 5], rtol=1e-6
  )


@pytest.mark.parametrize("mode", ["calibrated", "belief", "single"])
def test_invariants_of_the_weights(mode):
  var = jnp.asarray(np.random.default_rng(0).exponential(1.0, (4, 7)), jnp.float32)
  w = np.asarray(_bogc.evidence_weights(var, mode=mode))
  assert (w >= 0).all()
  np.testing.assert_allclose(w.sum(0), 1.0, rtol=1e-5)
  order = jnp.array([2, 0, 3, 1])
  np.testing.assert_allclose(
    _bogc.evidence_weights(var[order], mode=mode), w[np.asarray(order)], rtol=1e-5
  )
  equal = _bogc.evidence_weights(jnp.full((4, 1), 0.3), mode=mode)
  np.testing.assert_allclose(equal, 0.25, rtol=1e-6)
  sure = _bogc.evidence_weights(var.at[1].set(0.0), mode=mode)
  np.testing.assert_allclose(sure[1], 1.0, rtol=1e-6)


def test_limits_are_precision_weighting_and_the_mean():
  var = jnp.array([[1.0], [2.0], [4.0]])
  large = _bogc.evidence_weights(var, evidence_scale=1e6)
  np.testing.assert_allclose(large[:, 0], np.array([4, 2, 1]) / 7, rtol=1e-4)
  small = _bogc.evidence_weights(var, evidence_scale=1e-6)
  np.testing.assert_allclose(small, 1 / 3, rtol=1e-4)
  np.testing.assert_allclose(_bogc.evidence_weights(var * jnp.inf), 1 / 3, rtol=1e-6)


def test_absent_objectives_are_left_out_of_k_and_of_the_sum():
  var, here = jnp.array([[0.5], [9.0], [0.25]]), jnp.array([True, False, True])
  w = _bogc.evidence_weights(var, present=here)
  np.testing.assert_allclose(w[:, 0], [3 / 8, 0, 5 / 8], rtol=1e-6)
  b, u = _bogc.fuse_opinions(_bogc.evidence(var), here)
  np.testing.assert_allclose([*b[:, 0], u[0]], [2 / 8, 0, 4 / 8, 2 / 8], rtol=1e-6)


def test_variance_over_parts():
  parts = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
  grads = parts.mean(0)
  direction, state = apply(
    balancing.bogc(3, variance="parts"), grads, parts={"x": jnp.asarray(parts)}
  )
  w = np.asarray(_bogc.evidence_weights(jnp.asarray(parts.var(0, ddof=1))))
  np.testing.assert_allclose(direction, (w * grads).sum(0), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(state.weights, w.mean(1), rtol=1e-5)
  np.testing.assert_allclose(state.log_evidence, np.log(1 / parts.var(0, ddof=1)).mean(), rtol=1e-4)
  summed, _ = apply(
    balancing.bogc(3, variance="parts", rescale="sum"), grads, parts={"x": jnp.asarray(parts)}
  )
  np.testing.assert_allclose(summed, 3 * direction, rtol=1e-5)


def moving_moments(history, decay):
  """The same averages by explicit weights on the whole history [T]."""
  rates = [1.0] + [1 - decay] * (len(history) - 1)
  w = np.array([r * np.prod([1 - q for q in rates[i + 1 :]]) for i, r in enumerate(rates)])
  mean = w @ history
  return mean, w @ (history - mean) ** 2 / (1 - (w**2).sum())


def test_moving_variance_is_the_unbiased_weighted_one():
  history = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
  rule = balancing.bogc(2, decay=0.8)
  update, state = jax.jit(rule.update), rule.init({"x": jnp.zeros(3)})
  for g in history:
    direction, state = update({"x": g}, state)
  var = np.stack([[moving_moments(history[:, k, i], 0.8)[1] for i in range(3)] for k in range(2)])
  w = np.asarray(_bogc.evidence_weights(jnp.asarray(var, jnp.float32)))
  np.testing.assert_allclose(direction["x"], (w * history[-1]).sum(0), rtol=1e-4)


def test_the_first_step_of_the_moving_variance_is_the_mean():
  grads = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  np.testing.assert_allclose(
    apply(balancing.bogc(3), grads)[0], grads.mean(0), rtol=1e-5, atol=1e-6
  )


def test_an_absent_objective_keeps_its_averages():
  rule = balancing.bogc(2)
  g = {"x": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
  _, state = rule.update(g, rule.init({"x": jnp.zeros(2)}))
  _, after = rule.update(
    jax.tree.map(lambda x: x * jnp.array([[2.0], [0.0]]), g),
    state,
    present=jnp.array([True, False]),
  )
  np.testing.assert_array_equal(after.mean["x"][1], state.mean["x"][1])
  np.testing.assert_array_equal(after.seen, [2, 1])
  assert not np.allclose(after.mean["x"][0], state.mean["x"][0])


def test_leaves_of_one_objective_and_k_one_are_untouched():
  stacked, owners = late_fusion()
  parts = jax.tree.map(lambda g: jnp.stack([g, 3 * g]), stacked)
  rule = balancing.bogc(3, variance="parts")
  update = jax.jit(lambda g, parts, state: rule.update(g, state, parts=parts, owners=owners))
  direction, _ = update(stacked, parts, rule.init(params_of(stacked)))
  for name, row in (("audio", 1), ("image", 2), ("fused", 0)):
    np.testing.assert_array_equal(direction["heads"][name], stacked["heads"][name][row])
  v = np.asarray(jnp.var(parts["image"]["b"][:, jnp.array([0, 2])], axis=0, ddof=1))
  w = np.asarray(_bogc.evidence_weights(jnp.asarray(v)))
  np.testing.assert_allclose(
    direction["image"]["b"], (w * np.asarray(stacked["image"]["b"])[[0, 2]]).sum(0), rtol=1e-5
  )
  one = np.array([[1.0, -2.0]])
  np.testing.assert_array_equal(apply(balancing.bogc(1), one)[0], one[0])


def test_direction_error_falls_below_the_uniform_mean():
  """Coordinates of unequal noise: precision beats the plain average of two estimates."""
  rng = np.random.default_rng(0)
  true, noise = rng.normal(size=50), np.stack([np.full(50, 0.05), np.full(50, 3.0)])
  parts = (true + rng.normal(size=(8, 2, 50)) * noise).astype(np.float32)
  grads = parts.mean(0)
  direction, _ = apply(balancing.bogc(2, variance="parts"), grads, parts={"x": jnp.asarray(parts)})
  assert np.linalg.norm(direction - true) < 0.2 * np.linalg.norm(grads.mean(0) - true)


def test_order_of_fusion_does_not_matter():
  e = np.array([0.5, 3.0, 20.0])
  reference = dempster(e)[1]
  for order in itertools.permutations(range(3)):
    np.testing.assert_allclose(dempster(e[list(order)])[1], reference, rtol=1e-9)
  np.testing.assert_allclose(_bogc.fuse_opinions(jnp.asarray(e))[1], reference, rtol=1e-5)


def test_what_is_missing_or_wrong_is_named():
  grads = np.ones((2, 3))
  with pytest.raises(TypeError, match="parts="):
    apply(balancing.bogc(2, variance="parts"), grads)
  with pytest.raises(ValueError, match="at least 2 parts"):
    apply(balancing.bogc(2, variance="parts"), grads, parts={"x": jnp.ones((1, 2, 3))})
  with pytest.raises(ValueError, match="decay"):
    balancing.bogc(2, decay=1.0)
  with pytest.raises(ValueError, match="evidence_scale"):
    balancing.bogc(2, evidence_scale=0.0)
  with pytest.raises(ValueError, match="mode must be one of calibrated, belief, single"):
    _bogc.evidence_weights(jnp.ones((2, 1)), mode="dempster")
