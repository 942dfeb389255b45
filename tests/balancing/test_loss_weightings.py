"""Weightings of losses: UW, IMTL-L, FAMO, DWA, RLW, G-Blending."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse.balancing import Weighting, check_contract
from mmfuse.balancing._dwa import dwa
from mmfuse.balancing._famo import famo
from mmfuse.balancing._gblending import aggregate_by_gblending
from mmfuse.balancing._imtl_l import imtl_l
from mmfuse.balancing._rlw import rlw
from mmfuse.balancing._uw import uw

from ._helpers import clock

RULES = (uw, imtl_l, famo, dwa, rlw, aggregate_by_gblending)
LOSSES = jnp.array([2.0, 0.1, 1.0])
KEY = jax.random.key(0)


def weigh(rule, losses=LOSSES, state=None, **extra):
  extra = {"clock": clock(), "key": KEY, **extra}
  state = rule.init({}) if state is None else state
  weights, state = jax.jit(rule.weigh)(losses, state, None, **extra)
  return np.asarray(weights), state


def name(rule):
  return rule.__name__.removeprefix("aggregate_by_")


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_contract(rule):
  check_contract(rule, 3)


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_an_absent_objective_has_no_weight_and_no_say_and_its_state_stays(rule):
  rule = rule(3)
  assert isinstance(rule, Weighting)
  _, state = weigh(rule)
  here, seen = jnp.array([True, False, True]), []
  for stray in (0.0, 7.0):
    weights, new = weigh(rule, LOSSES.at[1].set(stray), state, present=here, clock=clock(3))
    if rule.after is not None:
      new = rule.after(0.5 * LOSSES.at[1].set(9 * stray), new)
    assert weights[1] == 0 and (weights[[0, 2]] > 0).all()
    seen.append(new._replace(weights=weights))
  memory = [f for f in seen[0]._fields if f not in ("weights", "total", "before", "present")]
  for field in memory:
    old, one, two = (jax.tree.leaves(getattr(s, field)) for s in (state, *seen))
    for a, b, c in zip(old, one, two):
      np.testing.assert_array_equal(b, c)
      if np.shape(a) == (3,) and field != "last" and field != "batches":  # DWA: the epoch turns
        np.testing.assert_array_equal(np.asarray(a)[1], np.asarray(b)[1])
  np.testing.assert_array_equal(seen[0].weights, seen[1].weights)


# Learned scales


def objective_uw(s, losses):
  return jnp.sum(losses / (2 * jnp.exp(s)) + s / 2)


def objective_imtl_l(s, losses):
  return jnp.sum(jnp.exp(s) * losses - s)


LEARNED = (
  (uw, "log_variances", -0.5, 0.5 * np.exp(0.5), objective_uw),
  (imtl_l, "log_scales", 0.0, 1.0, objective_imtl_l),
)


@pytest.mark.parametrize(("rule", "field", "start", "first", "objective"), LEARNED)
def test_learned_scales_descend_their_objective(rule, field, start, first, objective):
  rule = rule(3, learning_rate=0.01)
  s = getattr(rule.init({}), field)
  np.testing.assert_array_equal(s, np.float32([start] * 3))
  weights, state = weigh(rule)
  np.testing.assert_allclose(weights, [first] * 3, rtol=1e-6)
  np.testing.assert_allclose(weights, jax.grad(objective, 1)(s, LOSSES), rtol=1e-6)
  slope = jax.grad(objective)(s, LOSSES)
  np.testing.assert_allclose(state.opt.mean, 0.1 * slope, rtol=1e-5, atol=1e-7)
  # Adam's first step has length learning_rate, whatever the slope; IMTL-L is at rest where L = 1.
  np.testing.assert_allclose(getattr(state, field), s - 0.01 * np.sign(slope), atol=1e-6)


@pytest.mark.parametrize(("rule", "rest"), [(uw, 0.5), (imtl_l, 1.0)])
def test_at_rest_weighted_losses_are_equal(rule, rest):
  rule = rule(3, learning_rate=0.05)

  def step(state, _):
    return rule.weigh(LOSSES, state)[1], None

  state = jax.lax.scan(step, rule.init({}), None, 600)[0]
  np.testing.assert_allclose(state.weights * LOSSES, [rest] * 3, rtol=2e-2)


@pytest.mark.parametrize("rule", [uw, imtl_l])
def test_a_solved_loss_has_a_bounded_weight_that_comes_down_again(rule):
  losses = jnp.stack([jnp.full(300, 1e-6), jnp.ones(300)], axis=1).at[-40:].set(1.0)

  def weights(rule):
    step = lambda state, now: rule.weigh(now, state)[::-1]
    return np.asarray(jax.lax.scan(step, rule.init({}), losses)[1])

  bounded = weights(rule(2, learning_rate=0.05))
  free = weights(rule(2, learning_rate=0.05, max_weight=float("inf")))
  np.testing.assert_allclose(bounded[:, 0].max(), 100, rtol=1e-5)
  assert free[:, 0].max() > 1e4
  assert bounded[-1, 0] < 20 < 1e3 < free[-1, 0]
  np.testing.assert_array_equal(bounded[:, 1], free[:, 1])  # far from the bound nothing changes
  np.testing.assert_allclose(weights(rule(2, max_weight=0.25))[0], [0.25, 0.25], rtol=1e-6)
  with pytest.raises(ValueError, match="max_weight must be positive, got 0"):
    rule(2, max_weight=0)


@pytest.mark.parametrize("rule", [uw, imtl_l, famo])
def test_a_negative_rate_is_refused(rule):
  with pytest.raises(ValueError, match="learning_rate must be at least 0, got -1"):
    rule(2, learning_rate=-1)


# FAMO


def test_famo_by_hand():
  rule = famo(2, learning_rate=0.01)
  weights, state = weigh(rule, jnp.array([2.0, 1.0]))
  np.testing.assert_allclose(weights, [1 / 3, 2 / 3], rtol=1e-6)
  state = rule.after(jnp.array([1.0, 1.0]), state)  # the first fell by log 2, the second by 0
  slope = 0.25 * np.log(2) * np.array([1.0, -1.0])
  np.testing.assert_allclose(state.opt.mean, 0.1 * slope, rtol=1e-5)
  np.testing.assert_allclose(state.logits, [-0.01, 0.01], rtol=1e-5)
  np.testing.assert_allclose(
    weigh(famo(2, rescale="sum"), jnp.array([2.0, 1.0]))[0], [2 / 3, 4 / 3], rtol=1e-6
  )


def test_famo_moves_as_adam_with_coupled_decay():
  rule, tx = famo(3), optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))
  losses = np.random.default_rng(0).uniform(0.2, 2.0, (6, 3)).astype(np.float32)
  state, logits = rule.init({}), jnp.zeros(3)
  opt, move = tx.init(logits), jax.jit(lambda l, n, s: rule.after(n, rule.weigh(l, s)[1]))
  for now, then in itertools.pairwise(losses):
    state = move(now, then, state)
    fall = jnp.log(now) - jnp.log(then)
    slope = jax.vjp(jax.nn.softmax, logits)[1](fall)[0]
    updates, opt = tx.update(slope, opt, logits)
    logits = logits + updates
  # Optax forms 1 - .999^t by a difference in float32, which is off by 1.3e-5 of itself.
  np.testing.assert_allclose(state.logits, logits, rtol=1e-4)


def test_famo_without_a_second_look_stays_uniform_in_log_losses():
  rule = famo(3)
  for _ in range(2):
    weights, state = weigh(rule)
  np.testing.assert_allclose(weights * LOSSES / (weights @ np.asarray(LOSSES)), 1 / 3, rtol=1e-5)
  idle = rule.after(LOSSES, rule.init({}))  # before any batch: nothing to compare with
  jax.tree.map(np.testing.assert_array_equal, idle, rule.init({}))
  assert not state.logits.any()


def test_famo_counts_losses_below_the_floor_as_the_floor():
  weights, state = weigh(famo(2, floor=0.5), jnp.array([0.1, 1.5]))
  np.testing.assert_allclose(weights, [1.0, 0.0], atol=1e-6)
  assert np.isfinite(famo(2, floor=0.5).after(jnp.array([1.5, 0.1]), state).logits).all()
  with pytest.raises(ValueError, match="weight_decay must be at least 0"):
    famo(2, weight_decay=-1)
  with pytest.raises(ValueError, match="rescale must be one of none, sum"):
    famo(2, rescale="mean")


# DWA


def run_dwa(rule, epochs, losses, present=None):
  state, weigh = rule.init({}), jax.jit(lambda l, s, c, p: rule.weigh(l, s, clock=c, present=p))
  present = np.ones((len(epochs), len(losses[0])), bool) if present is None else present
  out = []
  for epoch, now, here in zip(epochs, np.float32(losses), np.asarray(present)):
    weights, state = weigh(now, state, clock(epoch), here)
    out.append(np.asarray(weights))
  return out, state


def test_dwa_compares_the_means_of_the_last_two_epochs():
  out, state = run_dwa(dwa(2), [0, 0, 1, 2, 2], [[2, 4], [4, 4], [3, 2], [9, 9], [9, 9]])
  np.testing.assert_allclose(out[:3], np.ones((3, 2)), rtol=1e-6)
  want = 2 * np.exp([0.5, 0.25]) / np.exp([0.5, 0.25]).sum()  # ratios 3/3 and 2/4, temperature 2
  np.testing.assert_allclose(out[3:], [want, want], rtol=1e-5)
  np.testing.assert_allclose([state.older, state.last], [[3, 4], [3, 2]], rtol=1e-6)
  np.testing.assert_allclose(state.total / state.batches, [9, 9], rtol=1e-6)


def test_dwa_objective_unseen_for_an_epoch_keeps_its_means():
  present = [[1, 1], [1, 1], [1, 0], [1, 1]]
  out, state = run_dwa(dwa(2), [0, 1, 2, 3], [[4, 4], [4, 2], [4, 0], [4, 1]], present)
  np.testing.assert_allclose([state.older[1], state.last[1]], [4, 2])
  assert out[2][1] == 0 and out[2][0] == 1


def test_dwa_knobs():
  hot, _ = run_dwa(dwa(2, 1e6), [0, 1, 2], [[4, 4], [4, 1], [4, 1]])
  np.testing.assert_allclose(hot[-1], [1, 1], atol=1e-5)
  with pytest.raises(ValueError, match="temperature must be positive"):
    dwa(2, 0.0)
  with pytest.raises(TypeError, match="clock"):
    dwa(2).weigh(LOSSES[:2], dwa(2).init({}))


# RLW


def test_rlw_is_the_softmax_of_normals_and_the_mean_on_average():
  rule = rlw(3)
  weights, _ = weigh(rule)
  np.testing.assert_allclose(weights, jax.nn.softmax(jax.random.normal(KEY, (3,))), rtol=1e-6)
  many = jax.vmap(lambda k: rule.weigh(LOSSES, rule.init({}), key=k)[0])(
    jax.random.split(KEY, 4000)
  )
  np.testing.assert_allclose(many.sum(1), np.ones(4000), rtol=1e-5)
  np.testing.assert_allclose(many.mean(0), np.full(3, 1 / 3), atol=0.015)
  assert many.std(0).min() > 0.1
  np.testing.assert_allclose(weigh(rlw(3, rescale="sum"))[0], 3 * weights, rtol=1e-6)
  with pytest.raises(TypeError, match="key"):
    rule.weigh(LOSSES, rule.init({}))


# G-Blending


def test_gblending_uses_what_is_written_into_its_state():
  rule = aggregate_by_gblending(3)
  weights, state = weigh(rule)
  np.testing.assert_allclose(weights, np.full(3, 1 / 3), rtol=1e-6)
  state = state._replace(weights=jnp.array([6.0, 1.0, 3.0]))  # only ratios matter
  weights, after = weigh(rule, state=state)
  np.testing.assert_allclose(weights, [0.6, 0.1, 0.3], rtol=1e-6)
  np.testing.assert_array_equal(after.weights, state.weights)
  here = jnp.array([True, False, True])
  np.testing.assert_allclose(
    weigh(rule, state=state, present=here)[0], [2 / 3, 0, 1 / 3], rtol=1e-6
  )
  given = aggregate_by_gblending(3, [6, 1, 3], rescale="sum")
  np.testing.assert_allclose(weigh(given)[0], [1.8, 0.3, 0.9], rtol=1e-6)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, -1.0, 1.0], [0.0] * 3, [np.nan, 1.0, 1.0]])
def test_gblending_refuses_bad_weights(weights):
  with pytest.raises(ValueError, match="weights must be"):
    aggregate_by_gblending(3, weights)
