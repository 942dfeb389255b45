"""Iterative amortised inference: what it reduces to, who moves, and what refinement is worth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import methods
from mmfuse.core import Clock
from mmfuse.methods.generative import _jmvae, _mmiai
from mmfuse.methods.generative.vae import _refine
from mmfuse.methods.generative.vae._refine import Lambda
from mmfuse.objectives import kl_losses

from .. import _small
from . import _vae

CLOCK = Clock(3, 1, 1, 2, 8)


def rule(**changes) -> _mmiai.Mmiai:
  plain = {"steps": 2, "alpha": 0.5, "hidden": 4, "refined": True, "feed": False, "bias": 1.0}
  return _mmiai.Mmiai(**{**plain, "initial": "joint", "direction": "forward", **changes})


def seen(**changes):
  given = _vae.seen(2)._replace(
    joint=(_vae.noise(_vae.ROWS, _vae.LATENT), _vae.noise(_vae.ROWS, _vae.LATENT, seed=2))
  )
  refiner = _refine.init_gated(jax.random.key(0), _vae.LATENT, 0, 4)
  return given._replace(shared={"refiner": refiner}, **changes)


def test_without_a_step_it_is_jmvae_whose_teacher_stays():
  given, still = seen(), rule(steps=0)

  def ours(mu, joint):
    return still.loss(given._replace(mu=mu, joint=(joint, given.joint[1])), _vae.KEY, CLOCK)[0]

  def theirs(mu, joint):
    one = given._replace(mu=mu, joint=(joint, given.joint[1]))
    noise = jnp.moveaxis(
      jax.random.normal(jax.random.split(_vae.KEY)[1], (_vae.ROWS, 1, _vae.LATENT)), 0, 1
    )
    found = _jmvae.terms(one, noise[0])
    fixed = _jmvae.apart(one, *jax.lax.stop_gradient(one.joint)).sum(0)
    return (found.nll + found.kl + 0.5 * fixed).mean()

  both = lambda *x: [jax.value_and_grad(f, (0, 1))(*x) for f in (ours, theirs)]
  (value, grads), (expected, wanted) = _vae.compiled(both, given.mu, given.joint[0])
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for a, b in zip(grads, wanted):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_open_gate_leaves_lambda_and_a_small_step_of_ascent_gains():
  given = seen()
  q, noises = Lambda(*given.joint), _vae.noise(3, _vae.ROWS, _vae.LATENT)
  shut = _refine.init_gated(jax.random.key(0), _vae.LATENT, 0, 4, bias=1e4)
  fixed = jnp.broadcast_to(noises[:1], noises.shape)

  def run():
    held = _refine.refine(given.explain, given.present, q, noises, _refine.gated(shut))
    up = _refine.refine(given.explain, given.present, q, fixed, _refine.ascent(1e-3))
    at = lambda t: _refine.elbo(given.explain, given.present, Lambda(up.mu[t], up.lv[t]), noises[0])
    return held, jnp.stack([at(t) for t in range(4)])

  held, climbed = _vae.compiled(run)
  for x, first in zip(held, q):
    np.testing.assert_allclose(x, np.broadcast_to(first[None], x.shape), rtol=1e-6)
  assert (np.diff(climbed, axis=0) > 0).all()


def test_the_gradient_that_is_read_is_a_constant():
  """d loss / d decoder goes through the ELBOs alone, not through what the update was told."""
  given = seen()

  def loss(shift, told):
    explain = tuple(lambda z, p=p: p(z + shift) for p in given.explain)
    still = tuple(lambda z, p=p: p(z + told) for p in given.explain)
    one = given._replace(explain=explain, still=still)
    return rule(alpha=0.0).loss(one, _vae.KEY, CLOCK)[0]

  through = _vae.compiled(jax.grad(loss, (0, 1)), jnp.zeros(()), jnp.zeros(()))
  assert through[0] != 0 and through[1] == 0


def test_alignment_moves_the_students_alone_and_the_elbo_the_others():
  given = seen()

  def loss(mu, joint, part):
    one = given._replace(mu=mu, joint=(joint, given.joint[1]))
    return rule(parts=(part,)).loss(one, _vae.KEY, CLOCK)[0]

  grad = lambda part: jax.grad(functools.partial(loss, part=part), (0, 1))
  both = lambda *x: (grad("align")(*x), grad("elbo")(*x))
  align, elbo = _vae.compiled(both, given.mu, given.joint[0])
  assert align[0].any() and not align[1].any()
  assert not elbo[0].any() and elbo[1].any()


def test_the_control_takes_as_many_elbos_and_refines_nothing():
  given, log = seen(), {}
  for refined in (True, False):
    one = rule(refined=refined)
    path = one.path(given, one.fixed(_vae.ROWS, _vae.LATENT))
    assert path.mu.shape[0] == (3 if refined else 1)
    log[refined] = one.loss(given, _vae.KEY, CLOCK)[1]
  np.testing.assert_allclose(log[True]["elbo_before"], log[False]["elbo_before"], rtol=1e-5)
  assert log[True]["elbo_after"] != log[False]["elbo_after"]


def test_reverse_alignment_is_the_other_divergence():
  given = seen()
  forward, reverse = (
    _mmiai.alignment(jnp.zeros_like(given.mu[0]), jnp.zeros_like(given.mu[0]), given, d)
    for d in ("forward", "reverse")
  )
  np.testing.assert_allclose(reverse, kl_losses(given.mu, given.lv).sum(0), rtol=1e-5)
  assert not np.allclose(forward, reverse)


def test_the_second_stage_moves_uni_modal_encoders_and_nothing_else():
  method = methods.METHODS["mmiai"](
    _small.model(), 0.1, task="generation", stages=2, steps=1, num_latent=2, hidden=2, width=2
  )
  assert [p.name for p in method.phases] == ["vae", "align"]
  state, batch = _small.start(method), _small.batch()
  step = jax.jit(method.phases[1].step, compiler_options={"xla_backend_optimization_level": 0})
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  new = step(state, batch, jax.random.key(0), clock)[0]
  moved = {
    path[0].key if path[0].key != "heads" else f"heads/{path[1].key}"
    for path, changed in jax.tree_util.tree_flatten_with_path(
      jax.tree.map(lambda a, b: bool((a != b).any()), state.params, new.params)
    )[0]
    if changed
  }
  assert moved == {"a", "b", "heads/a", "heads/b"}


@pytest.mark.parametrize(
  "options, words",
  [
    ({"steps": -1}, "steps must be at least 0"),
    ({"initial": "prior"}, "initial must be 'joint' or 'product', got 'prior'"),
    ({"direction": "both"}, "direction must be 'forward' or 'reverse'"),
    ({"stages": 3}, "stages must be 1 or 2"),
    ({"stages": 2, "initial": "product"}, "two stages need initial='joint'"),
    ({"likelihood": "poisson"}, "unknown likelihood 'poisson'"),
  ],
)
def test_what_is_refused(options, words):
  with pytest.raises(ValueError, match=words):
    methods.METHODS["mmiai"](_small.model(), 0.1, **options)


def test_refinement_is_a_function_of_the_method():
  method = methods.METHODS["mmiai"](_small.model(), 0.1, task="generation")
  assert {"iwae", "generate", "decode", "refinement"} <= set(method.functions)
  with_head = methods.METHODS["mmiai"](_small.model(), 0.1)
  assert set(with_head.functions) == set(method.functions)
  assert [p.name for p in with_head.phases] == ["vae", "head"]
