"""Aggregators with memory or chance: GradNorm, GradDrop, GradVac, MoCo, MoDo, SDMGrad, ExcessMTL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing, tree
from mmfuse.balancing import _min_norm
from mmfuse.balancing._double_sampling import PARTS
from mmfuse.balancing._excess_mtl import excess_mtl
from mmfuse.balancing._graddrop import graddrop, sign_mask, sign_purity
from mmfuse.balancing._gradnorm import gradnorm, gradnorm_loss
from mmfuse.balancing._gradvac import gradvac, gradvac_weights
from mmfuse.balancing._moco import moco
from mmfuse.balancing._modo import modo
from mmfuse.balancing._sdmgrad import sdmgrad, sdmgrad_shares

from ._helpers import apply, clock, conflicting, late_fusion, params_of

RULES = (gradnorm, graddrop, gradvac, moco, modo, sdmgrad, excess_mtl)
KEY = jax.random.key(3)
LOSSES = jnp.array([1.0, 2.0, 0.5])
EXTRA = {"losses": LOSSES, "clock": clock(epoch=1), "key": KEY}
HERE = jnp.array([True, False, True])


# Compiled once each: op by op they are slow to test.
vac = jax.jit(gradvac_weights, static_argnames=("beta", "variant"))
slope_of = jax.jit(jax.value_and_grad(gradnorm_loss))
search = jax.jit(sdmgrad_shares, static_argnames=("iterations", "variant"))


def name(rule):
  return rule.__name__.removeprefix("aggregate_by_")


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_contract(rule):
  balancing.check_contract(rule, 3)


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_heads_keep_their_plain_gradient(rule):
  stacked, owners = late_fusion()
  rule = rule(3)
  direction, _ = jax.jit(lambda g: rule.update(g, rule.init(params_of(g)), owners=owners, **EXTRA))(
    stacked
  )
  for m, g in stacked["heads"].items():
    np.testing.assert_allclose(direction["heads"][m], g.sum(0), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_an_absent_objective_has_no_weight_and_no_say_and_its_state_stays(rule):
  rule, grads = rule(3), jnp.asarray(conflicting(0, 3))
  update = jax.jit(lambda g, s, l, p: rule.update(g, s, **{**EXTRA, "losses": l}, present=p))
  before = update({"x": grads}, rule.init({"x": grads[0]}), LOSSES, jnp.ones(3, bool))[1]
  (d, new), (e, other) = (
    update({"x": grads.at[1].set(stray)}, before, LOSSES.at[1].set(stray), HERE)
    for stray in (0.0, 7.0)
  )
  np.testing.assert_array_equal(d["x"], e["x"])
  jax.tree.map(np.testing.assert_array_equal, new, other)
  assert new.weights[1] == 0 and np.abs(d["x"]).max() > 0
  for field in new._fields:
    for a, b in zip(jax.tree.leaves(getattr(before, field)), jax.tree.leaves(getattr(new, field))):
      if field != "weights" and a.ndim:
        np.testing.assert_array_equal(a[1], b[1])
  if "shares" in new._fields:
    np.testing.assert_allclose(new.shares.sum(), 1.0, rtol=1e-6)


@pytest.mark.parametrize("rule", [gradnorm, graddrop, gradvac, excess_mtl], ids=name)
def test_gradients_that_agree_are_summed_at_first(rule):
  grads = np.abs(conflicting(1, 3))
  extra = {**EXTRA, "clock": clock(epoch=0)}
  np.testing.assert_allclose(apply(rule(3), grads, **extra)[0], grads.sum(0), rtol=1e-5)


# GradNorm


def test_gradnorm_loss_by_hand():
  zeros, norms, ones = jnp.zeros(2), jnp.array([3.0, 1.0]), jnp.ones(2)
  np.testing.assert_allclose(slope_of(zeros, norms, ones, ones, 0.0)[0], 2.0)  # |3-2| + |1-2|
  losses = jnp.array([1.0, 3.0])  # rates 1/2 and 3/2: targets 1 and 3
  loss, slope = slope_of(zeros, norms, losses, ones, 1.0)
  np.testing.assert_allclose(loss, 4.0)
  # The target is a constant: the slope is J^T of the softmax on 3 sign(2) and 1 sign(-2).
  np.testing.assert_allclose(slope, [2.0, -2.0], rtol=1e-6)


def test_gradnorm_averages_epoch_zero_and_then_equalises_norms():
  grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
  rule = gradnorm(2, 0.0, learning_rate=0.01)
  state = rule.init({"x": grads[0]})
  update = jax.jit(lambda s, c, l: rule.update({"x": grads}, s, losses=l, clock=c))
  for losses in ([1.0, 4.0], [3.0, 4.0]):
    direction, state = update(state, clock(0), jnp.array(losses))
    np.testing.assert_array_equal(direction["x"], [3, 1])
  np.testing.assert_array_equal(state.first_sum / state.first_count, [2, 4])
  np.testing.assert_array_equal(state.logits, [0, 0])
  for _ in range(150):
    direction, state = update(state, clock(1), jnp.array([9.0, 9.0]))
  np.testing.assert_allclose(state.weights, [0.5, 1.5], atol=0.03)
  np.testing.assert_allclose(direction["x"], [1.5, 1.5], atol=0.06)
  np.testing.assert_array_equal(state.first_sum, [4, 8])  # later epochs add nothing


def test_gradnorm_pushes_the_slow_objective():
  grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  rule = gradnorm(2)
  update = jax.jit(lambda s, c, l: rule.update({"x": grads}, s, losses=l, clock=c)[1])
  state = update(rule.init({"x": grads[0]}), clock(0), jnp.array([1.0, 1.0]))
  for _ in range(2):
    state = update(state, clock(1), jnp.array([0.2, 0.9]))
  assert state.weights[1] > 1 > state.weights[0]
  with pytest.raises(ValueError, match="alpha"):
    gradnorm(2, -1.0)


def test_gradnorm_starts_the_reference_of_a_late_objective_at_its_first_presence():
  grads = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  rule = gradnorm(2)
  update = jax.jit(lambda s, c, l, p: rule.update({"x": grads}, s, losses=l, clock=c, present=p)[1])
  state = rule.init({"x": grads[0]})
  for epoch, late in ((0, 0.0), (1, 4.0), (1, 2.0)):
    state = update(state, clock(epoch), jnp.array([1.0, late]), jnp.array([True, late > 0]))
  np.testing.assert_array_equal([state.first_sum, state.first_count], [[1, 4], [1, 1]])
  assert state.weights[1] == 1  # at its first presence it was on the same pace
  assert state.logits[0] > 0 > state.logits[1]  # the late one has halved since: the other is slower


# GradDrop


def test_graddrop_sign_purity_and_mask_by_hand():
  grads = jnp.array([[3.0, -1.0, 0.0], [-1.0, -2.0, 0.0]])
  np.testing.assert_allclose(sign_purity(grads), [0.75, 0.0, 0.5])
  mask = sign_mask(grads, jnp.array([0.7, 0.1, 0.9]))
  np.testing.assert_array_equal(mask, [[True, True, False], [False, True, False]])
  np.testing.assert_array_equal(sign_mask(grads, jnp.full(3, 0.8))[:, 0], [False, True])


def test_graddrop_keeps_one_sign_everywhere_and_is_right_on_average():
  grads = jnp.asarray(conflicting(2, 3))
  rule = graddrop(3)
  state = rule.init({"x": grads[0]})
  many = jax.jit(jax.vmap(lambda k: rule.update({"x": grads}, state, key=k)[0]["x"]))(
    jax.random.split(KEY, 4000)
  )
  up, down = np.maximum(grads, 0).sum(0), np.minimum(grads, 0).sum(0)
  assert (np.isclose(many, up, atol=1e-5) | np.isclose(many, down, atol=1e-5)).all()
  purity = np.asarray(sign_purity(grads))
  np.testing.assert_allclose(many.mean(0), purity * up + (1 - purity) * down, atol=0.15)


def test_graddrop_leak_and_weights():
  grads = conflicting(2, 3)
  np.testing.assert_allclose(apply(graddrop(3, 1.0), grads, key=KEY)[0], grads.sum(0), rtol=1e-5)
  half, state = apply(graddrop(3, 0.5), grads, key=KEY)
  hard, _ = apply(graddrop(3), grads, key=KEY)
  np.testing.assert_allclose(half, 0.5 * (hard + grads.sum(0)), rtol=1e-4, atol=1e-5)
  assert (state.weights >= 0.5).all() and (state.weights <= 1).all()
  with pytest.raises(ValueError, match="leak must lie in"):
    graddrop(3, 1.5)
  with pytest.raises(TypeError, match="key"):
    graddrop(3).update({"x": jnp.ones((3, 2))}, graddrop(3).init({}))


# GradVac


ORDER = jnp.array([[1, 2, 0], [2, 0, 1], [0, 1, 2]])


@pytest.mark.parametrize("seed", range(3))
def test_gradvac_starts_as_pcgrad(seed):
  grads = conflicting(seed, 3)
  direction, _ = apply(gradvac(3), grads, order=ORDER)
  same, _ = apply(balancing.pcgrad(3), grads, order=ORDER)
  np.testing.assert_allclose(direction, same, rtol=1e-4, atol=1e-5)


def test_gradvac_lifts_the_cosine_to_its_target():
  grads = conflicting(5, 2)
  gram, order = jnp.asarray(grads @ grads.T), jnp.array([[1, 0], [0, 1]])
  cosine = gram[0, 1] / jnp.sqrt(gram[0, 0] * gram[1, 1])
  targets = jnp.array([[0.0, 0.8], [-0.99, 0.0]])
  weights, moved = vac(gram, targets, order, 0.25)
  lifted = grads[0] + (weights[1] - 1.0) * grads[1]  # the second is above its target: untouched
  got = lifted @ grads[1] / np.linalg.norm(lifted) / np.linalg.norm(grads[1])
  np.testing.assert_allclose(got, 0.8, rtol=1e-4)
  np.testing.assert_allclose(weights[0], 1.0)
  want = 0.75 * targets + 0.25 * cosine * jnp.array([[0.0, 1.0], [1.0, 0.0]])
  np.testing.assert_allclose(moved, want, rtol=1e-4)
  released = vac(gram, targets, order, 0.25, variant="released")[1]
  np.testing.assert_allclose(released, [[0.0, want[0, 1]], [-0.99, 0.0]], rtol=1e-4)


def test_gradvac_of_equal_gradients_stays_bounded_and_zero_ones_move_nothing():
  gram = jnp.ones((2, 2))
  order, usual = jnp.array([[0, 1], [1, 0]]), jnp.ones((2, 2))
  weights, _ = vac(gram, usual, order, 0.5)
  np.testing.assert_allclose(weights, [1, 1], atol=1e-2)
  weights, targets = vac(jnp.diag(jnp.array([1.0, 0.0])), usual, order, 0.5)
  np.testing.assert_array_equal(weights, [1, 1])
  np.testing.assert_array_equal(targets, usual)


def test_gradvac_does_not_depend_on_the_size_of_the_gradients():
  grads = conflicting(5, 3)
  gram, targets = jnp.asarray(grads @ grads.T), jnp.full((3, 3), 0.5)
  weights, moved = vac(gram, targets, ORDER)
  small, same = vac(1e-10 * gram, targets, ORDER)
  np.testing.assert_allclose(small, weights, rtol=1e-5)
  np.testing.assert_allclose(same, moved, rtol=1e-5)
  released, _ = vac(1e-10 * gram, targets, ORDER, variant="released")
  assert np.abs(released - weights).max() > 0.1


def test_gradvac_knobs():
  grads = conflicting(0, 3)
  mean, _ = apply(gradvac(3, rescale="mean"), grads, order=ORDER)
  np.testing.assert_allclose(3 * mean, apply(gradvac(3), grads, order=ORDER)[0], rtol=1e-5)
  with pytest.raises(TypeError, match="key="):
    apply(gradvac(3), grads)
  with pytest.raises(ValueError, match="beta"):
    gradvac(3, 1.5)
  with pytest.raises(ValueError, match="variant"):
    gradvac(3, variant="code")


# MoCo


def test_moco_by_hand():
  grads, losses = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([1.0, 2.0])
  rule = moco(2)
  direction, state = apply(rule, grads, losses=losses)
  tracked = np.array([[0.5, 0.0], [0.0, 1.0]])  # half of [1, 0] and of [0, 2]
  lam = np.exp([0.5 - 0.1 * 0.25 * 0.5, 0.5 - 0.1 * 1.0 * 0.5])
  lam /= lam.sum()
  np.testing.assert_allclose(state.tracked["x"], tracked, rtol=1e-6)
  np.testing.assert_allclose(state.weights, lam, rtol=1e-6)
  np.testing.assert_allclose(direction, lam @ tracked, rtol=1e-6)
  _, state = jax.jit(rule.update)({"x": grads}, state, losses=losses)
  rate = 0.5 / np.sqrt(2)
  np.testing.assert_allclose(
    state.tracked["x"], tracked + rate * (2 * tracked - tracked), rtol=1e-5
  )
  assert state.steps == 2
  both, _ = apply(moco(2, rescale="sum"), grads, losses=losses)
  np.testing.assert_allclose(both, 2 * direction, rtol=1e-6)


def test_moco_projection_finds_min_norm_where_the_softmax_stays_near_the_mean():
  grads, losses = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([1.0, 2.0])
  # As above, but Proj(.4875, .45).
  _, state = apply(moco(2, variant="paper"), grads, losses=losses)
  np.testing.assert_allclose(state.weights, [0.51875, 0.48125], rtol=1e-6)
  found = {}
  for variant in ("paper", "released"):
    rule = moco(2, variant=variant, gamma_sigma=0.0)
    step = lambda s, _, rule=rule: (rule.update({"x": grads}, s, losses=losses)[1], None)
    found[variant] = jax.lax.scan(step, rule.init({"x": grads[0]}), None, 200)[0].weights
  np.testing.assert_allclose(found["paper"], [0.8, 0.2], atol=1e-3)  # of (1, 0) and (0, 2)
  assert 1 < found["released"][0] / found["released"][1] < np.e
  with pytest.raises(ValueError, match="variant must be one of released, paper"):
    moco(2, variant="code")


def test_moco_refuses_bad_knobs():
  with pytest.raises(ValueError, match="beta must be positive"):
    moco(2, 0.0)
  with pytest.raises(ValueError, match="rho must be at least 0"):
    moco(2, rho=-1.0)


# MoDo and SDMGrad


def test_modo_by_hand_uses_three_batches():
  parts = jnp.array([[[1.0], [0.5]], [[2.0], [1.0]], [[5.0], [7.0]]])
  rule = modo(2, 0.1, 0.1)
  start = rule.init({"x": parts[0, 0]})
  update = jax.jit(lambda p: rule.update({"x": p.mean(0)}, start, parts={"x": p}))
  assert len(parts) == PARTS
  direction, state = update(parts)
  # G1 G2^T lam = [1.5, .75]; lam - .1 (that + .05) = [.345, .42], then + .1175 each.
  np.testing.assert_allclose(state.weights, [0.4625, 0.5375], rtol=1e-6)
  np.testing.assert_allclose(direction["x"], [0.4625 * 5 + 0.5375 * 7], rtol=1e-6)
  more, _ = update(jnp.concatenate([parts, parts[2:] + 2.0]))  # the mean of the rest: 6, 8
  np.testing.assert_allclose(more["x"], direction["x"] + 1.0, rtol=1e-6)
  two, _ = update(parts[:2])  # the mean of both: 1.5, .75
  np.testing.assert_allclose(two["x"], [0.4625 * 1.5 + 0.5375 * 0.75], rtol=1e-6)


@pytest.mark.parametrize("rule", [modo, sdmgrad], ids=name)
@pytest.mark.parametrize("part", [0, 1])
def test_an_objective_unseen_in_a_weighing_part_keeps_its_share(rule, part):
  """Its zero row would draw weight; the others divide theirs as if it were not there."""
  knobs = {"gamma": 0.1} if rule is modo else {}
  rng = np.random.default_rng(0)
  parts = jnp.asarray(rng.normal(size=(3, 3, 4)) + 1.0, jnp.float32).at[part, 1].set(0.0)
  _, state = apply(rule(3, **knobs), parts.mean(0), parts={"x": parts})
  both = parts[:, jnp.array([0, 2])]
  _, wanted = apply(rule(2, **knobs), both.mean(0), parts={"x": both})
  assert abs(wanted.shares[0] - 0.5) > 0.01
  np.testing.assert_allclose(state.shares[1], 1 / 3, rtol=1e-6)
  np.testing.assert_allclose(state.shares[jnp.array([0, 2])], 2 / 3 * wanted.shares, rtol=1e-5)
  np.testing.assert_allclose(state.weights.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("rule", [modo, sdmgrad], ids=name)
def test_without_parts_one_batch_serves_for_all(rule):
  grads = conflicting(3, 3)
  alone, _ = apply(rule(3), grads)
  thrice, _ = apply(rule(3), grads, parts={"x": jnp.stack([grads] * PARTS)})
  np.testing.assert_allclose(alone, thrice, rtol=1e-6)
  with pytest.raises(ValueError, match="at least 2 batches, got 1"):
    apply(rule(3), grads, parts={"x": jnp.asarray(grads)[None]})


@pytest.mark.parametrize("rule", [modo(3, 0.05, 0.0), sdmgrad(3, 0.0)], ids=["modo", "sdmgrad"])
def test_without_noise_the_weights_become_those_of_min_norm(rule):
  grads = jnp.asarray(conflicting(4, 3))
  update = lambda s, _: (rule.update({"x": grads}, s)[1], None)
  state = jax.lax.scan(update, rule.init({"x": grads[0]}), None, 200)[0]
  np.testing.assert_allclose(state.weights, _min_norm.min_norm(grads @ grads.T), atol=1e-3)
  np.testing.assert_allclose(state.weights.sum(), 1.0, rtol=1e-6)


@pytest.mark.parametrize(("variant", "rate"), [("paper", 0.4), ("released", 0.02)])
def test_sdmgrad_by_hand(variant, rate):
  """Steps of .1: .4 over the row sum 4, or 5 times .02."""
  gram, start = jnp.diag(jnp.array([4.0, 0.0])), jnp.full(2, 0.5)
  # scale = (2 + 0) / 2 = 1; slope = [2, 0] + .5 [2, 0]; w = Proj(.5 - .1 * 3, .5) = [.35, .65].
  once = search(gram, start, 0.5, iterations=1, learning_rate=rate, variant=variant)
  np.testing.assert_allclose(once, [0.35, 0.65], rtol=1e-6)
  # v = .5 * 3 + 4 * .35 + 1 = 3.9: Proj(.35 - .39, .65) = [.155, .845].
  twice = search(gram, start, 0.5, iterations=2, learning_rate=rate, variant=variant)
  np.testing.assert_allclose(twice, [0.155, 0.845], rtol=1e-5)


@pytest.mark.parametrize("lam", [0.3, 1e-3])
def test_sdmgrad_search_converges(lam):
  """A (w + lam / K) is constant at the optimum: w = (1 + lam) p - lam / K, p proportional to 1/A."""
  gram = jnp.diag(jnp.array([1.0, 0.64, 1.44]))
  inverse = 1 / np.array([1.0, 0.64, 1.44])
  wanted = (1 + lam) * inverse / inverse.sum() - lam / 3  # [.30, .52, .18] for lam = .3
  first = search(gram, jnp.full(3, 1 / 3), lam)
  np.testing.assert_allclose(first, wanted, atol=1e-3)
  np.testing.assert_allclose(search(gram, first, lam), first, atol=1e-3)
  far = search(gram, jnp.array([1.0, 0.0, 0.0]), lam)
  np.testing.assert_allclose(far, wanted, atol=1e-3)
  jumping = search(gram, first, lam, variant="released")
  assert np.abs(jumping - wanted).max() > 0.1


def test_sdmgrad_stays_on_the_simplex_where_all_products_are_negative():
  """Two batches may disagree about every objective: the scale is then 1e-8."""
  gram = jnp.array([[-3.0, 1.0, 2.0], [0.5, -1.0, 4.0], [-2.0, 1.0, -5.0]])
  weights = search(gram, jnp.full(3, 1 / 3))
  np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
  assert (weights >= 0).all()


def test_sdmgrad_pull_and_knobs():
  grads = conflicting(4, 3)
  far, _ = apply(sdmgrad(3, 1e4), grads)
  np.testing.assert_allclose(far, grads.mean(0), atol=1e-3)
  total, _ = apply(sdmgrad(3, 1e4, rescale="sum"), grads)
  np.testing.assert_allclose(total, 3 * far, rtol=1e-5)
  for bad in (
    {"lam": -1},
    {"iterations": 0},
    {"learning_rate": 0},
    {"momentum": 1.0},
    {"variant": "x"},
  ):
    with pytest.raises(ValueError, match=next(iter(bad))):
      sdmgrad(3, **bad)
  with pytest.raises(ValueError, match="gamma"):
    modo(3, -1.0)


# ExcessMTL


def test_excess_mtl_by_hand():
  rule = excess_mtl(2, 0.5)
  update, grads = jax.jit(rule.update), {"x": jnp.array([[1.0], [2.0]])}
  direction, state = update(grads, rule.init({"x": grads["x"][0]}))
  np.testing.assert_allclose(direction["x"], [3.0], rtol=1e-6)
  np.testing.assert_allclose(state.first, [1.0, 2.0], rtol=1e-5)  # g^2 / sqrt(g^2)
  grads = {"x": jnp.array([[0.0], [2.0]])}  # the first is done; 4 / sqrt(4 + 4) of the second
  direction, state = update(grads, state)
  want = np.exp(0.5 * np.array([0.0, np.sqrt(0.5)]))
  want *= 2 / want.sum()
  np.testing.assert_allclose(state.weights, want, rtol=1e-5)
  np.testing.assert_allclose(direction["x"], [2 * want[1]], rtol=1e-5)
  np.testing.assert_allclose(state.squares["x"], [[1.0], [8.0]], rtol=1e-6)


def test_excess_mtl_takes_the_first_risk_that_is_not_zero():
  rule, zero = excess_mtl(2), {"x": jnp.array([[0.0], [1.0]])}
  state, update = rule.init({"x": jnp.zeros(1)}), jax.jit(rule.update)
  for grads in (zero, {"x": jnp.array([[3.0], [1.0]])}):
    _, state = update(grads, state)
  np.testing.assert_allclose(state.first, [3.0, 1.0], rtol=1e-5)
  with pytest.raises(ValueError, match="step_size"):
    excess_mtl(2, -1.0)


# What they share


def test_leaves_of_one_objective_do_not_count_in_the_weights():
  """MoCo's norms: the same with and without a huge head."""
  shared = jnp.asarray(conflicting(0, 2))
  owners = {"x": tree.Owner(None, "shared", (0, 1)), "h": tree.Owner(None, "head", (0,))}
  states, rule = [], moco(2)
  update = jax.jit(lambda g, s: rule.update(g, s, losses=LOSSES[:2], owners=owners))
  for size in (1.0, 1e3):
    grads = {"x": shared, "h": jnp.array([[size], [0.0]])}
    _, state = update(grads, rule.init(params_of(grads)))
    states.append(state)
  np.testing.assert_array_equal(states[0].weights, states[1].weights)
  np.testing.assert_array_equal(states[1].tracked["h"], np.zeros((2, 1)))
