"""The bounds of the multi-modal VAEs: by hand, against each other, and of rows that lack modalities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.core import Clock
from mmfuse.methods.generative import _jmvae, _mmvae, _mmvae_plus, _mopoe, _mvae, _mvtcae
from mmfuse.methods.generative.vae import _importance
from mmfuse.methods.generative.vae._families import FAMILIES
from mmfuse.methods.generative.vae._gaussian import kl_between, product, products
from mmfuse.methods.generative.vae._mixture import drawn_components, every_component
from mmfuse.methods.generative.vae._seen import Seen, warmed_by
from mmfuse.objectives import kl_losses

from . import _vae

NORMAL, LAPLACE = FAMILIES["normal"], FAMILIES["laplace"]
RULES = {
  "mvae": _mvae.Mvae(1.0, 0, 1, True),
  "mmvae": _mmvae.Mmvae("laplace", "dreg_looser", 2, True),
  "mmvae_plus": _mmvae_plus.MmvaePlus("normal", "iwae_looser", 2, 1.0, True),
  "mopoe": _mopoe.Mopoe(1.0, 0),
  "mvtcae": _mvtcae.Mvtcae(0.3, 2.5, 0),
}


def pair(name):
  """(two modalities of three, the same two alone)."""
  private = name == "mmvae_plus"
  return _vae.seen(3, absent=(2,), private=private), _vae.seen(2, private=private)


def values(name, seen: Seen, width: int):
  """What each row adds to the loss, by noise that does not depend on how many modalities there are."""
  eps = functools.partial(_vae.noise, seed=5)
  m = seen.mu.shape[0]
  if name == "mvae":
    return _mvae.term(seen, (True,) * m, eps(_vae.ROWS, width)).nll
  if name == "mvtcae":
    return _mvtcae.weighed(_mvtcae.terms(seen, eps(_vae.ROWS, width)), seen.present, 0.3, 2.5)
  if name == "mopoe":
    subsets = _mopoe.subset_posteriors(seen)
    table = _mopoe.table(m)
    wanted = next(i for i, row in enumerate(table) if row[:2].all() and not row[2:].any())
    component = jnp.full(_vae.ROWS, wanted)
    return _mopoe.negative_elbo(seen, subsets, component, eps(_vae.ROWS, width))[0]
  draw = lambda *lead: eps(3, *lead)[:m]
  if name == "mmvae":
    return _mmvae.bound(NORMAL, seen, draw(2, _vae.ROWS, width), jnp.zeros((1, width)), "iwae")
  cross = eps(3, 3, 2, _vae.ROWS, _vae.PRIVATE)[:m, :m]
  noise = _mmvae_plus.Noise(draw(2, _vae.ROWS, width), draw(2, _vae.ROWS, _vae.PRIVATE), cross)
  return _mmvae_plus.bound(NORMAL, seen, noise)


@pytest.mark.parametrize("name", RULES)
def test_a_row_that_lacks_a_modality_has_the_bound_of_the_smaller_model(name):
  larger, smaller = pair(name)
  both = lambda s: (values(name, s, _vae.LATENT), RULES[name].posterior(s).mean)
  found, expected = _vae.compiled(lambda: (both(larger), both(smaller)))
  np.testing.assert_allclose(found[0], expected[0], rtol=2e-5)
  np.testing.assert_allclose(found[1], expected[1], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_what_an_absent_modality_says_reaches_neither_value_nor_gradient(name):
  private = name == "mmvae_plus"

  def loss(mu, lv, junk):
    given = _vae.seen(3, absent=(2,), private=private)
    explain = (*given.explain[:2], lambda z: junk + 0 * z.sum(-1))
    seen = given._replace(mu=mu, lv=lv, explain=explain)
    return RULES[name].loss(seen, _vae.KEY, Clock(3, 1, 1, 2, 8))[0]

  given = _vae.seen(3, absent=(2,), private=private)
  grad = jax.jit(jax.value_and_grad(loss, (0, 1)))
  found, other = (grad(given.mu, given.lv, junk) for junk in (0.0, 1e6))
  assert found[0] == other[0]
  for a, b in zip(found[1], other[1]):
    np.testing.assert_array_equal(a, b)
    assert not np.asarray(a[2]).any() and np.isfinite(a).all()


@pytest.mark.parametrize("name", RULES)
def test_padding_moves_nothing(name):
  private = name == "mmvae_plus"
  seen = _vae.seen(2, private=private)
  fewer = jax.tree.map(lambda x: x, seen)
  few = 4

  def cut(x, axis):
    return jnp.take(x, jnp.arange(few), axis)

  explain = tuple(
    lambda z, p=p: p(jnp.pad(z, [(0, 0)] * (z.ndim - 2) + [(0, _vae.ROWS - few), (0, 0)]))[
      ..., :few
    ]
    for p in seen.explain
  )
  fewer = seen._replace(
    mu=cut(seen.mu, 1),
    lv=cut(seen.lv, 1),
    present=cut(seen.present, 1),
    weight=cut(seen.weight, 0),
    explain=explain,
    private=tuple(cut(x, 1) for x in seen.private) if private else None,
  )
  real = jnp.arange(_vae.ROWS) < few
  padded = seen._replace(present=seen.present & real[None], weight=real.astype(jnp.float32))
  clock = Clock(3, 1, 1, 2, 8)
  of = lambda s: RULES[name].loss(s, _vae.KEY, clock)[0]
  found, expected = _vae.compiled(lambda: (of(padded), of(fewer)))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_product_of_experts():
  seen = _vae.seen(3)
  everybody = seen.present
  mu, lv = product(seen.mu, seen.lv, everybody)
  turned = product(seen.mu[::-1], seen.lv[::-1], everybody)
  np.testing.assert_allclose(mu, turned[0], rtol=1e-5, atol=1e-6)
  assert (np.asarray(lv) <= np.asarray(product(seen.mu[:2], seen.lv[:2], everybody[:2])[1])).all()
  alone = product(seen.mu[:1], seen.lv[:1], everybody[:1])
  np.testing.assert_allclose(alone[0], seen.mu[0], rtol=1e-6)
  np.testing.assert_allclose(alone[1], seen.lv[0], rtol=1e-5, atol=1e-6)
  out = lambda lvs: sum(jnp.sum(x) for x in product(seen.mu, lvs, everybody))
  vague = seen.lv.at[2].set(jnp.inf)
  value, grad = jax.value_and_grad(out)(vague)
  two = product(seen.mu[:2], seen.lv[:2], everybody[:2])
  np.testing.assert_allclose(value, sum(x.sum() for x in two), rtol=1e-5)
  assert np.isfinite(grad).all() and not np.asarray(grad[2]).any()
  nobody = product(seen.mu, seen.lv, ~everybody)
  assert not np.asarray(nobody[0]).any() and not np.asarray(nobody[1]).any()
  naive = products(seen.mu, seen.lv, everybody[None], jnp.zeros((1, _vae.ROWS), bool), eps=0.0)
  np.testing.assert_allclose(naive[0][0], mu, rtol=1e-4, atol=1e-6)


def test_a_gaussian_is_no_nats_from_itself_and_the_prior_is_a_gaussian():
  seen = _vae.seen(2)
  np.testing.assert_allclose(kl_between(*(2 * (seen.mu, seen.lv))), 0.0, atol=1e-6)
  none = jnp.zeros_like(seen.mu)
  np.testing.assert_allclose(
    kl_between(seen.mu, seen.lv, none, none), kl_losses(seen.mu, seen.lv), rtol=1e-5
  )


@pytest.mark.parametrize("family", [NORMAL, LAPLACE], ids=["normal", "laplace"])
def test_a_family_agrees_with_its_own_draws(family):
  """KL(q || p) is the mean of log q - log p over many draws of q."""
  loc, raw = jnp.asarray([[0.5, -1.0, 0.2]]), jnp.asarray([[0.3, -0.4, 0.1]])
  prior = jnp.asarray([[0.2, 0.0, -0.1]])
  z = family.moved(loc, raw, family.noise(jax.random.key(0), (200_000, 3)))
  ratio = family.log_prob(z, loc, raw) - family.log_prob(z, jnp.zeros_like(prior), prior)
  np.testing.assert_allclose(ratio.mean(), family.kl(loc, raw, prior)[0], atol=0.02)


@pytest.mark.parametrize("looser", [True, False])
def test_the_decoder_of_dreg_follows_iwae_and_the_encoder_does_not(looser):
  given = _vae.seen(2)
  prior, eps = jnp.zeros((1, _vae.LATENT)), _vae.noise(2, 4, _vae.ROWS, _vae.LATENT)

  def gradient(objective, **options):
    def loss(mu, shift):
      explain = tuple(lambda z, p=p: p(z + shift[None, None, None]) for p in given.explain)
      seen = given._replace(mu=mu, explain=explain)
      # The shift is a parameter of the decoders: it moves what they say of a draw, not the draw.
      return _mmvae.bound(NORMAL, seen, eps, prior, objective, **options).sum()

    return _vae.compiled(jax.grad(loss, (0, 1)), given.mu, jnp.zeros(_vae.LATENT))

  names = ("iwae_looser", "dreg_looser") if looser else ("iwae", "dreg")
  (mu, decoder), (mu_dreg, decoder_dreg) = (gradient(n) for n in names)
  np.testing.assert_allclose(decoder, decoder_dreg, rtol=1e-4)
  assert not np.allclose(mu, mu_dreg, rtol=1e-2)
  released = gradient(names[1], double_reweight=False)[0]
  assert not np.allclose(released, mu_dreg, rtol=1e-2)


def test_the_mean_over_all_draws_is_above_the_mean_of_means():
  lw = _vae.noise(2, 5, _vae.ROWS)
  everybody = jnp.ones((2, _vae.ROWS), bool)
  strict, looser = _importance.iwae(lw, everybody), _importance.iwae_looser(lw, everybody)
  assert (np.asarray(strict) >= np.asarray(looser)).all()
  one = lw[:, :1]
  w = _importance.shares(one, everybody, True)
  np.testing.assert_allclose(
    _importance.iwae_looser(one, everybody), (w * one).sum(1).mean(0), rtol=1e-5
  )


def test_identical_experts_are_one():
  given = _vae.seen(2)
  seen = given._replace(mu=jnp.stack([given.mu[0]] * 2), lv=jnp.stack([given.lv[0]] * 2))
  z = _vae.noise(3, _vae.ROWS, _vae.LATENT)
  found = _mmvae.mixture_log_prob(NORMAL, z, seen.mu, seen.lv, seen.present)
  np.testing.assert_allclose(found, NORMAL.log_prob(z, seen.mu[:1], seen.lv[:1]), rtol=1e-5)


def test_blocks_are_equal_and_the_rest_goes_to_the_last():
  rows = jnp.asarray([True, False, True, True, True, True, True, True])
  assert _mopoe.blocks(rows, 3)[rows].tolist() == [0, 0, 1, 1, 2, 2, 2]
  assert _mopoe.blocks(rows[:2], 3).tolist() == [2, 2]


def test_incomplete_rows_draw_their_subset_among_those_they_have():
  seen = _vae.seen(3)
  present = jnp.asarray([[1] * 6, [0, 0, 0, 1, 1, 1], [1] * 6], bool)
  seen = seen._replace(present=present)
  available = _mopoe.subset_posteriors(seen).available
  drawn = np.stack([_mopoe.choose(seen, available, jax.random.key(k)) for k in range(40)])
  table = _mopoe.table(3)
  assert (drawn[:, 3:] == 6).all()  # three complete rows, seven subsets
  assert {tuple(table[i]) for i in drawn[:, :3].ravel()} == {
    (True, False, False),
    (False, False, True),
    (True, False, True),
  }


def test_mvtcae_without_experts_in_its_bound_is_an_elbo():
  seen, eps = _vae.seen(2), _vae.noise(_vae.ROWS, _vae.LATENT)
  found = _mvtcae.terms(seen, eps)
  np.testing.assert_allclose(
    _mvtcae.weighed(found, seen.present, 0.0, 1.0), found.nll + found.to_prior, rtol=1e-6
  )


def test_subsets_are_drawn_between_two_and_all_but_one():
  assert _mvae.draw_subsets(jax.random.key(0), 2, 3) is None
  found = np.asarray(_mvae.draw_subsets(jax.random.key(0), 4, 4))
  assert found.shape == (4, 4) and set(found.sum(1)) <= {2, 3}
  assert len({tuple(row) for row in found}) == 4
  assert _mvae.draw_subsets(jax.random.key(0), 3, 9).shape == (3, 3)


def test_beta_grows_by_the_clock():
  at = lambda epoch, batch: float(warmed_by(Clock(0, epoch, batch, 4, 20), 10, 2.0))
  assert at(0, 0) == 0.0 and at(0, 2) == pytest.approx(0.1) and at(3, 2) == pytest.approx(0.7)
  assert at(9, 0) == 2.0 and at(15, 3) == 2.0
  assert float(warmed_by(Clock(0, 0, 0, 4, 20), 0, 2.0)) == 2.0


def test_components_are_drawn_by_weight_and_only_where_they_have_some():
  weight = jnp.asarray([[0.0, 0.5], [1.0, 0.25], [0.0, 0.25]])
  found = np.asarray(drawn_components(jax.random.key(0), weight, 4000))
  assert (found[:, 0] == 1).all()
  np.testing.assert_allclose(np.bincount(found[:, 1]) / 4000, weight[:, 1], atol=0.03)
  assert every_component(weight).tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("name", RULES)
def test_the_elbo_is_below_iwae_and_of_nobody_it_is_0(name):
  seen = _vae.seen(3, private=name == "mmvae_plus")
  nobody = seen._replace(present=jnp.zeros_like(seen.present))

  def weigh(given, choose):
    post = RULES[name].posterior(given)
    return post.log_weights(given.explain, given.present, _vae.KEY, choose(post.weight))

  many, none = _vae.compiled(
    lambda: (
      weigh(seen, lambda w: drawn_components(_vae.KEY, w, 400)),
      weigh(nobody, every_component),
    )
  )
  bound = np.logaddexp.reduce(np.asarray(many, np.float64), 0) - np.log(400)
  assert (np.asarray(many).mean(0) < bound).all()
  np.testing.assert_allclose(none, 0.0, atol=1e-5)


def test_jmvae_learns_nothing_of_incomplete_rows():
  rule = _jmvae.Jmvae(0.1, 1.0, 0)
  seen = _vae.seen(2)._replace(joint=(_vae.noise(6, 3), _vae.noise(6, 3)))
  half = seen.present.at[1, 3:].set(False)
  clock = Clock(3, 1, 1, 2, 8)
  found, log = rule.loss(seen._replace(present=half), _vae.KEY, clock)
  gone = seen._replace(weight=jnp.asarray([1.0, 1, 1, 0, 0, 0]))
  np.testing.assert_allclose(found, rule.loss(gone, _vae.KEY, clock)[0], rtol=1e-6)
  assert log["complete_rows"] == 3
  post = rule.posterior(seen._replace(present=half))
  np.testing.assert_array_equal(post.mu[0, :3], seen.joint[0][:3])
  np.testing.assert_allclose(post.mu[0, 3:], seen.mu[0, 3:], rtol=1e-6)
