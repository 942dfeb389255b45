"""DIBS: what each of its three updates moves, what they pull at, and what the search leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import train
from mmfuse.core import Functions, Unavailable
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion
from mmfuse.methods import METHODS
from mmfuse.methods.ensembles import _dibs_losses as losses

from .. import _small

KEY = jax.random.key(5)
SMALL = {"members": 2, "width": 3, "hidden": (4,)}
BUILD = functools.partial(METHODS["dibs"], _small.model(), **SMALL)


METHOD = BUILD(0.1, adversary_tx=train.sgd(0.1))
STEP = jax.jit(METHOD.phases[0].step)


@functools.cache
def start():
  return _small.start(METHOD)


def rated(likelihood, adversaries):
  """The state before the first step, with these learning rates."""
  opt = train.set_learning_rate(start().opt, likelihood)
  given = lambda path, x: (
    x if "likelihood" in path or "learning_rate" not in path else jnp.full_like(x, adversaries)
  )
  named = lambda path, x: given(jax.tree_util.keystr(path), x)
  return start()._replace(opt=jax.tree_util.tree_map_with_path(named, opt))


@functools.cache
def stepped(likelihood, adversaries):
  """(before, after, log) of one step."""
  before = rated(likelihood, adversaries)
  return before, *STEP(before, _small.batch(), KEY, _small.clock())


def moved(before, after):
  """The top of the path of each leaf that changed."""
  pairs = zip(jax.tree_util.tree_flatten_with_path(before.params)[0], jax.tree.leaves(after.params))
  return {
    jax.tree_util.keystr(
      path[:3] if path[0].key == "heads" else path[:1], simple=True, separator="/"
    )
    for (path, x), y in pairs
    if (x != y).any()
  }


def test_each_player_moves_its_own_leaves():
  generated = {"a", "b", "heads/fused/mean", "heads/fused/logvar"}
  before, after, log = stepped(0.0, 0.1)
  assert moved(before, after) == {*generated, "discriminator"}
  assert moved(*stepped(0.0, 0.0)[:2]) == set()
  likelihood = stepped(0.1, 0.0)
  assert moved(*likelihood[:2]) == {
    *generated,
    "heads/fused/kernel",
    "heads/fused/bias",
    "heads/a/bias",
    "heads/a/kernel",
    "heads/b/bias",
    "heads/b/kernel",
  }
  assert {"loss/likelihood", "loss/generator", "loss/discriminator"} < set(log)
  assert {"pair/prior", "pair/cross", "pair/prior_latent", "pair/same"} < set(log)
  total = log["pair/prior"] + log["pair/cross"] + log["pair/prior_latent"]
  np.testing.assert_allclose(log["loss/discriminator"], -total, rtol=1e-5)


def test_the_heads_of_an_adversary_that_moves_nothing_are_those_of_a_shared_trunk():
  options = {k: SMALL[k] for k in ("members", "width")}
  plain = METHODS["shared_trunk"](_small.model(), 0.1, **options)
  step = jax.jit(plain.phases[0].step)
  after, _ = step(_small.start(plain), _small.batch(), KEY, _small.clock())
  _, found, _ = stepped(0.1, 0.0)
  kept = {k: v for k, v in found.params.items() if k != "discriminator"}
  for x, y in zip(*map(jax.tree.leaves, (kept, after.params)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
  ("name", "player", "critic"),
  [
    ("dibs", "likelihood", {"adversary_tx": train.adam(2e-4)}),
    ("diverse", "networks", {"critic_tx": train.adam(2e-4)}),
  ],
)
def test_a_search_leaves_the_rates_of_critics_and_adversaries_alone(name, player, critic):
  """Also where they have one that could be written."""
  method = METHODS[name](_small.model(), 0.1, **critic, hidden=(4,))
  opt = _small.start(method).opt
  assert train.has_learning_rate(opt, 0.1)
  found = train.set_learning_rate(opt, 0.5)["train"]
  rates = {
    who: [
      float(x)
      for path, x in jax.tree_util.tree_flatten_with_path(state)[0]
      if "hyperparams" in jax.tree_util.keystr(path)
    ]
    for who, state in found.items()
  }
  assert rates.pop(player) == [0.5]
  assert len(rates) == {"dibs": 2, "diverse": 1}[name]
  for own in rates.values():
    np.testing.assert_allclose(own, [2e-4], rtol=1e-6)


def problem(heads=3, rows=5):
  """(a discriminator, latents [2, K, B, L], prior [2, B, L], weight [B])."""
  keys = jax.random.split(KEY, 4)
  kernel = jax.random.normal(keys[0], (4, 2))
  judge = lambda a, b: jnp.tanh(jnp.concatenate([a, b], -1) @ kernel) @ jnp.asarray([1.0, -0.5])
  latents = jax.random.normal(keys[1], (2, heads, rows, 2))
  return judge, latents, jax.random.normal(keys[2], (2, rows, 2)), jnp.ones(rows)


def test_losses_do_not_depend_on_the_order_of_the_heads():
  judge, latents, prior, weight = problem()
  for terms in (losses.generator_terms, losses.discriminator_terms):
    one, other = (terms(judge, z, prior, weight) for z in (latents, latents[:, ::-1]))
    for name in one:
      np.testing.assert_allclose(one[name], other[name], rtol=1e-5)


def test_the_discriminator_sees_constants_and_a_row_of_weight_0_is_not_read():
  judge, latents, prior, weight = problem()
  pull = jax.grad(lambda z: sum(losses.discriminator_terms(judge, z, prior, weight).values()))
  assert not pull(latents).any()
  spoilt = latents.at[:, :, -1].set(jnp.nan)
  gone = weight.at[-1].set(0.0)
  found = losses.generator_terms(judge, spoilt, prior, gone)
  want = losses.generator_terms(judge, latents[:, :, :-1], prior[:, :-1], weight[:-1])
  for name in want:
    np.testing.assert_allclose(found[name], want[name], rtol=1e-5)


def test_one_head_has_no_other_to_be_told_from():
  judge, latents, prior, weight = problem(heads=1)
  points = losses.all_points(latents, prior)
  kinds = {"cross": losses.cross_pairs(1), "same": losses.same_pairs(1)}
  found = losses.said(judge, points, kinds, weight)
  assert float(found["cross"]) == 0.0
  assert np.isfinite(found["same"])
  assert float(found["same"]) == pytest.approx(
    float(losses.said(judge, points, {"same": kinds["same"]}, weight)["same"]), rel=1e-6
  )


def test_the_generator_parts_heads_and_keeps_them_near_the_prior():
  """A judge that says yes to what is near: cross pairs are pulled apart, latents to the prior."""
  judge = lambda a, b: -jnp.square(a - b).sum(-1)
  _, latents, prior, weight = problem(heads=2)

  def pull(pairs):
    points = lambda z: losses.all_points(z, prior)
    return jax.grad(lambda z: losses.said(judge, points(z), {"": pairs}, weight)[""])(latents)[0]

  apart = pull(losses.cross_pairs(2))
  away = latents[0, 0] - latents[0, 1]
  assert (jnp.sum(-apart[0] * away, -1) > 0).all()  # descent moves the first away from the second
  near = pull(losses.prior_latent_pairs(2))
  assert (jnp.sum(-near * (prior[:1] - latents[0]), -1) > 0).all()


def test_it_says_shares_of_votes_and_can_average():
  batch, state = _small.batch(), start()
  said = jax.jit(METHOD.predict)(state, batch.inputs, batch.mask)
  votes = np.stack([(said.aux["members"].argmax(-1) == c).sum(1) for c in range(3)], -1)
  np.testing.assert_allclose(np.exp(said.logits), (votes + 1 / 3) / 3, rtol=1e-5)
  mean = jax.jit(BUILD(0.1, joined="mean").predict)(state, batch.inputs, batch.mask)
  np.testing.assert_allclose(
    np.exp(mean.logits), jax.nn.softmax(mean.aux["members"]).mean(1), rtol=1e-5
  )


def test_what_it_refuses():
  with pytest.raises(ValueError, match="weight must not be negative"):
    BUILD(0.1, weight=-1.0)
  with pytest.raises(ValueError, match="joined must be one of mean, vote"):
    BUILD(0.1, joined="sum")
  with pytest.raises(Unavailable, match="dibs replaces the fusion of a LateFusion"):
    METHODS["dibs"](Functions(None, None, None, ("a",)), 0.1)
  named = LateFusion({"discriminator": MLP(3, ())}, 2)
  with pytest.raises(
    Unavailable, match="'discriminator', which is where the discriminator is kept"
  ):
    METHODS["dibs"](named, 0.1)
