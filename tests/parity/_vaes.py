"""Multi-modal VAEs on parity cases: encoders' outputs are given, decoder m is z W_m + b_m."""

import json

import jax
import jax.numpy as jnp

from mmfuse.methods.generative import _jmvae, _mmvae, _mmvae_plus, _mopoe, _mvae, _mvtcae
from mmfuse.methods.generative.vae import _likelihood
from mmfuse.methods.generative.vae._families import FAMILIES
from mmfuse.methods.generative.vae._gaussian import kl_between, product, products
from mmfuse.methods.generative.vae._seen import Seen, warmed

from ._cases import Case

NORMAL = FAMILIES["normal"]


def _f(case: Case, name: str):
  return jnp.asarray(case.inputs[name], jnp.float32)


def _all(case: Case, mus):
  return jnp.ones(mus.shape[:2], bool)


def poe(case: Case) -> dict:
  mus, lvs = _f(case, "mus"), _f(case, "logvars")
  stable = product(mus, lvs, _all(case, mus))
  naive = products(mus, lvs, _all(case, mus)[None], jnp.zeros((1, mus.shape[1]), bool))
  return {
    "mu_stable": stable[0],
    "lv_stable": stable[1],
    "mu_naive": naive[0][0],
    "lv_naive": naive[1][0],
  }


def poe_prior(case: Case) -> dict:
  mus, lvs = _f(case, "mus"), _f(case, "logvars")
  mu, lv = product(mus, lvs, _all(case, mus), prior=True)
  return {"mu": mu, "lv": lv}


def poe_missing(case: Case) -> dict:
  mus, lvs = _f(case, "mus"), _f(case, "logvars")
  present = _all(case, mus).at[0].set(_f(case, "mask0") > 0)
  mu, lv = product(mus, lvs, present, prior=True)
  return {"mu": mu, "lv": lv}


def kl(case: Case) -> dict:
  return {"kl": kl_between(*(_f(case, n) for n in ("mu0", "lv0", "mu1", "lv1")))}


def _explain(case: Case, w, kind="normal", weights=None):
  of, x, b = _likelihood.parse(kind), _f(case, "x"), _f(case, "b")

  def one(m):
    factor = 1.0 if weights is None else weights[m]
    said = lambda z: z @ w[m] + b[m].reshape((1,) * (z.ndim - 1) + (-1,))
    return lambda z: factor * of.log_prob(said(z), x[m])

  return tuple(one(m) for m in range(x.shape[0]))


def _seen(case: Case, mu, lv, **more) -> Seen:
  present = more.pop("present", jnp.ones(mu.shape[:2], bool))
  explain = more.pop("explain", None) or _explain(case, _f(case, "W"))
  return Seen(mu, lv, present, jnp.ones(mu.shape[1], jnp.float32), explain, **more)


def _with_gradients(loss, named: dict) -> dict:
  """{"loss", "g_<name>"} and what `loss` says beside."""
  names = list(named)
  run = lambda *args: loss(**dict(zip(names, args)))
  grad = jax.value_and_grad(run, argnums=tuple(range(len(names))), has_aux=True)
  (value, aux), found = grad(*named.values())
  return {"loss": value, **{f"g_{n}": g for n, g in zip(names, found)}, **aux}


def _given(case: Case, *names: str) -> dict:
  return {n: _f(case, n) for n in names}


def mvae(case: Case) -> dict:
  hp, eps = case.hp, _f(case, "eps")
  beta = warmed(hp["epoch"], hp["batch_ratio"], int(hp["warmup"]), hp["beta"])
  chosen = _subsets(case)

  def loss(mu, lv):
    seen = _seen(case, mu, lv)
    members = [tuple(m in s for m in range(mu.shape[0])) for s in chosen]
    # A drawn subset comes as an array: what training does with it.
    members = [jnp.asarray(m) if 1 < sum(m) < len(m) else m for m in members]
    terms = [_mvae.term(seen, m, e) for m, e in zip(members, eps, strict=True)]
    each = jnp.stack([(t.nll + beta * t.kl).mean() for t in terms])
    return each.sum(), {"neg_elbo": each, "kld": jnp.stack([t.kl.mean() for t in terms])}

  return _with_gradients(loss, _given(case, "mu", "lv"))


def _subsets(case: Case) -> list:
  found = case.hp["subsets"]
  return json.loads(found) if isinstance(found, str) else found


def mvae_masked(case: Case) -> dict:
  present = _f(case, "masks") > 0
  seen = _seen(case, _f(case, "mu"), _f(case, "lv"), present=present)
  found = _mvae.term(seen, (True,) * present.shape[0], _f(case, "eps")[0])
  value = jnp.where(found.rows, found.nll + case.hp["beta"] * found.kl, 0.0)
  return {"loss": value.sum() / found.rows.sum()}


def mopoe(case: Case) -> dict:
  def loss(mu, lv):
    seen = _seen(case, mu, lv)
    subsets = _mopoe.subset_posteriors(seen)
    component = _mopoe.choose(seen, subsets.available, jax.random.key(0))
    value, kl = _mopoe.negative_elbo(seen, subsets, component, _f(case, "eps"), case.hp["beta"])
    at = lambda x: jnp.take_along_axis(x, component[None, :, None], 0)[0]
    return value.mean(), {
      "joint_divergence": kl.mean(),
      "joint_mu": at(subsets.mu),
      "joint_lv": at(subsets.lv),
      "subset_mu": subsets.mu,
      "subset_lv": subsets.lv,
    }

  order = [
    tuple(i for i, inside in enumerate(row) if inside) for row in _mopoe.table(len(_f(case, "mu")))
  ]
  assert order == [tuple(s) for s in _subsets(case)]
  return _with_gradients(loss, _given(case, "mu", "lv"))


def mvtcae(case: Case) -> dict:
  def loss(mu, lv):
    seen = _seen(case, mu, lv)
    found = _mvtcae.terms(seen, _f(case, "eps"))
    value = _mvtcae.weighed(found, seen.present, case.hp["alpha"], case.hp["beta"])
    return value.mean(), {
      "kld": found.to_experts.sum(1),
      "joint_divergence": found.to_prior.sum(),
    }

  return _with_gradients(loss, _given(case, "mu", "lv"))


def jmvae(case: Case) -> dict:
  hp = case.hp
  grown = warmed(hp["epoch"], 1.0, int(hp["warmup"]))

  def loss(mu, lv, jmu, jlv):
    found = _jmvae.terms(_seen(case, mu, lv, joint=(jmu, jlv)), _f(case, "eps"))
    return (found.nll + grown * (found.kl + hp["alpha"] * found.apart)).mean(), {}

  return _with_gradients(loss, _given(case, "mu", "lv", "jmu", "jlv"))


def mmvae(case: Case) -> dict:
  """The loss is a sum over the batch."""
  family = FAMILIES[str(case.hp["dist"]).split("_")[0]]
  noise = _f(case, "noise")

  def loss(mu, lv, W, prior_lv):
    seen = _seen(case, mu, lv, explain=_explain(case, W))
    value = _mmvae.bound(family, seen, noise, prior_lv, str(case.hp["objective"]))
    return -value.sum(), {"lw": _mmvae.log_weights(family, seen, noise, prior_lv)}

  return _with_gradients(loss, _given(case, "mu", "lv", "W", "prior_lv"))


def mmvae_plus(case: Case) -> dict:
  noise = _mmvae_plus.Noise(*(_f(case, n) for n in ("eps_u", "eps_w", "eps_cross")))

  def loss(mu, lv, smu, slv, rlv):
    seen = _seen(case, mu, lv, private=(smu, slv), cross=rlv)
    value = _mmvae_plus.bound(NORMAL, seen, noise, case.hp["beta"], str(case.hp["objective"]))
    return -value.sum(), {}

  return _with_gradients(loss, _given(case, "mu", "lv", "smu", "slv", "rlv"))


SHI = {
  "m_elbo_naive": "elbo_naive",
  "m_elbo": "elbo",
  "m_iwae": "iwae",
  "m_iwae_looser": "iwae_looser",
  "m_dreg": "dreg",
  "m_dreg_looser": "dreg_looser",
}


def shi(case: Case) -> dict:
  """The original objectives, which are maximised, and whose DReG hook never fires."""
  objective = SHI[case.name.removeprefix("shi_").rpartition("_M")[0]]
  family, noise = FAMILIES["laplace"], _f(case, "noise")
  prior = jnp.zeros((1, noise.shape[-1]))

  def value(mu, lv, W):
    explain = _explain(case, W, "laplace:.75", case.hp["llik"])
    seen = _seen(case, mu, lv, explain=explain)
    found = _mmvae.bound(family, seen, noise, prior, objective, double_reweight=False)
    return found.sum(), {}

  found = _with_gradients(value, _given(case, "mu", "lv", "W"))
  return {**found, "objective": found["loss"]}
