"""Diverse representations: estimates, permutations, batches, and what the networks learn of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import train
from mmfuse.core import Clock, Functions, Unavailable
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion, with_fusion
from mmfuse.methods import METHODS
from mmfuse.methods.ensembles import _total_correlation as tc
from mmfuse.methods.ensembles._balanced import BalancedRows, balanced_batches
from mmfuse.methods.ensembles._diverse import FinalFeatures

from .. import _small

KEY = jax.random.key(7)
SMALL = {"width": 2, "hidden": (4,), "critic_steps": 1, "estimator": "dre"}


@functools.cache
def stepped(**options):
  """(before, after, log) of one step."""
  method = METHODS["diverse"](_small.model(), 0.1, **{**SMALL, **options})
  start = _small.start(method)
  return start, *jax.jit(method.phases[0].step)(start, _small.batch(), KEY, _small.clock())


def test_without_a_weight_the_networks_are_a_deep_ensemble():
  narrow = with_fusion(_small.model(), FinalFeatures(2), "")
  plain = METHODS["deep_ensemble"](narrow, 0.1, members=2)
  start = _small.start(plain)
  after, _ = jax.jit(plain.phases[0].step)(start, _small.batch(), KEY, _small.clock())
  _, found, _ = stepped(lam=0.0)
  networks = {k: v for k, v in found.params.items() if k != "critic"}
  for x, y in zip(*map(jax.tree.leaves, (networks, after.params)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_the_networks_follow_the_estimate_and_the_critic_its_own_loss():
  before, free, plain = stepped(lam=0.0)
  _, after, log = stepped(lam=2.0)
  apart = lambda x, y: max(jax.tree.leaves(jax.tree.map(lambda a, b: abs(a - b).max(), x, y)))
  assert bool(log["finite"]) and apart(after.params["a"], free.params["a"]) > 1e-5
  # Critics go first, so theirs do not know what the networks make of them.
  assert apart(after.params["critic"], free.params["critic"]) == 0
  assert apart(after.params["critic"], before.params["critic"]) > 0
  np.testing.assert_allclose(
    log["loss/networks"] - log["errors"] - 2 * log["total_correlation"],
    plain["loss/networks"] - log["errors"],
    rtol=1e-4,
    atol=1e-5,
  )


def test_a_permutation_keeps_classes_and_knows_nothing_of_what_comes_after():
  label = jnp.asarray([2, 0, 1, 0, 2, 2, 3, 0])
  found = np.asarray(jax.jit(tc.permute_within_classes, static_argnums=2)(KEY, label, 3))
  assert (found[0] == np.arange(8)).all() and (np.sort(found, 1) == np.arange(8)).all()
  assert (np.asarray(label)[found] == np.asarray(label)[None]).all()
  assert (found[:, [2, 6]] == [2, 6]).all()  # alone in their class
  assert (found[1:] != np.arange(8)).any() and (found[1] != found[2]).any()
  more = jnp.concatenate([label, jnp.asarray([9, 9])])  # as padding is labelled
  longer = jax.jit(tc.permute_within_classes, static_argnums=2)(KEY, more, 3)
  np.testing.assert_array_equal(longer[:, :8], found)


def test_permutations_of_a_class_are_all_equally_likely():
  keys = jax.random.split(KEY, 3000)
  draw = lambda key: tc.permute_within_classes(key, jnp.asarray([1, 0, 1, 1]), 2)[1]
  drawn = jax.jit(jax.vmap(draw))(keys)
  found, counts = np.unique(np.asarray(drawn), axis=0, return_counts=True)
  assert len(found) == 6 and np.abs(counts - 500).max() < 100  # five standard deviations


def test_bounds_read_no_row_of_weight_0_and_are_ordered():
  joint, product = jax.random.normal(KEY, (2, 6)) * jnp.asarray([[1.0], [2.0]])
  weight = jnp.asarray([1.0, 2.0, 1.0, 0.5, 1.0, 0.0])
  spoilt = product.at[-1].set(jnp.nan)
  value, pull = jax.jit(jax.value_and_grad(tc.dv, 1))(joint, spoilt, weight)
  w = np.asarray(weight[:-1], np.float64)
  want = np.average(joint[:-1], weights=w) - np.log(np.average(np.exp(product[:-1]), weights=w))
  np.testing.assert_allclose(value, want, rtol=1e-5)
  assert np.isfinite(pull).all() and pull[-1] == 0
  dv = jax.jit(tc.dv)
  assert float(jax.jit(tc.nwj)(joint, product, weight)) <= float(value)
  assert float(dv(joint, spoilt, 0 * weight)) == 0.0
  assert np.isfinite(dv(joint, 500.0 * product, weight))
  assert float(dv(3 + 0 * joint, 3 + 0 * joint, weight)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["dv", "dre"])
def test_a_critic_finds_the_total_correlation_of_gaussians(kind):
  """Two numbers of correlation .8 within a class: .51 nats, and none where they are permuted."""
  rho, rows, net = 0.8, 256, tc.CriticNetwork((16,))
  exact = float(tc.gaussian_total_correlation(jnp.asarray([[1.0, rho], [rho, 1.0]]), 1))
  assert exact == pytest.approx(-0.5 * np.log(1 - rho**2), rel=1e-5)
  label = jnp.arange(rows) % 2
  params, tx = net.init(KEY, jnp.zeros((1, 4))), optax.adam(1e-2)

  def said(params, key):
    noise_key, perm_key = jax.random.split(key)
    u = jax.random.normal(noise_key, (2, rows))
    z = jnp.stack([u[0], rho * u[0] + (1 - rho**2) ** 0.5 * u[1]]) + label[None]
    perms = tc.permute_within_classes(perm_key, label, 2)
    critic = lambda z, y: net.apply(params, tc.beside_label(z, y, 2))
    return tc.judged(critic, z[..., None], label, perms)

  @jax.jit
  def trained(params):
    def step(carry, key):
      params, opt = carry
      loss = lambda p: tc.critic_loss(kind, *said(p, key), jnp.ones(rows))
      updates, opt = tx.update(jax.grad(loss)(params), opt, params)
      return (optax.apply_updates(params, updates), opt), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(KEY, 500))
    estimate = lambda key: tc.ESTIMATORS[kind](*said(params, key), jnp.ones(rows))
    return jax.lax.map(estimate, jax.random.split(jax.random.key(1), 20)).mean()

  assert float(trained(params)) == pytest.approx(exact, abs=0.12)


def test_balanced_batches_by_hand():
  label = np.repeat([0, 1, 2], 8)
  found = balanced_batches(label, 4, np.random.default_rng(0))
  assert found.shape == (4, 8) and (found[:, 6:] == -1).all()
  real = found[:, :6]
  assert sorted(real.ravel()) == list(range(24))  # every row once
  for batch in real:
    assert np.bincount(label[batch]).tolist() == [2, 2, 2]
  rare = np.repeat([0, 1], [19, 2])
  found = balanced_batches(rare, 3, np.random.default_rng(1))
  counts = np.stack([np.bincount(rare[b[b >= 0]], minlength=2) for b in found])
  assert counts.sum() == 21 and np.abs(counts[:, 0] - counts[:, 1]).max() <= 1
  assert set(found[(found >= 0) & (rare[found] == 1)]) == {19, 20}


def test_its_batches_hold_each_class_alike_and_no_row_without_a_label():
  split = _small.splits().train
  known = np.arange(len(split)) % 6 != 0  # half of the first class
  hour = Clock(0, 0, 0, 3, 4)
  method = METHODS["diverse"](_small.model(), 0.1)
  (phase,) = method.phases
  assert phase.rows == BalancedRows()
  splits = {"train": split.replace(labelled=known)}
  one, other = (phase.rows(None, splits, jax.random.key(k), hour)[0] for k in (0, 1))
  assert one.shape == (3, 16) and (one != other).any()
  for batch in one:
    rows = batch[batch >= 0]
    assert known[rows].all() and np.ptp(np.bincount(np.asarray(split.label)[rows])) <= 1
  assert METHODS["diverse"](_small.model(), 0.1, balanced=False).phases[0].rows is None


def test_it_hands_on_the_features_of_all_networks_side_by_side():
  method = METHODS["diverse"](_small.model(), 0.1, members=3, width=2)
  batch, state = _small.batch(), _small.start(method)
  said = jax.jit(method.predict)(state, batch.inputs, batch.mask)
  assert said.aux["latent"].shape == (_small.BATCH, 6) and abs(said.aux["latent"]).max() <= 1
  assert said.aux["members"].shape == (_small.BATCH, 3, 3)


def test_what_it_refuses():
  with pytest.raises(ValueError, match="estimator must be one of dv, nwj, dre"):
    METHODS["diverse"](_small.model(), 0.1, estimator="mine")
  with pytest.raises(Unavailable, match="diverse replaces the fusion"):
    METHODS["diverse"](Functions(None, None, None, ("a",)), 0.1)
  with pytest.raises(Unavailable, match="'critic', which is where the critic is kept"):
    METHODS["diverse"](LateFusion({"critic": MLP(3, ())}, 2), 0.1)
  method = METHODS["diverse"](dataclasses.replace(_small.model(), num_classes=1), 0.1, **SMALL)
  batch = _small.batch()
  batch = batch._replace(label=batch.label.astype(jnp.float32))
  with pytest.raises(ValueError, match="diverse needs one class per row"):
    method.phases[0].step(_small.start(method), batch, KEY, _small.clock())
  assert METHODS["diverse"].tasks == ("classification",)
  assert train.only_phase(method).name == "train"
