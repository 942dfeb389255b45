"""Iterative amortised inference on parity cases: decoders z W_m + b_m with variances s2_m."""

import jax
import jax.numpy as jnp

from mmfuse.methods.generative._mmiai import alignment
from mmfuse.methods.generative.vae import _refine
from mmfuse.methods.generative.vae._gaussian import kl_between
from mmfuse.methods.generative.vae._likelihood import Likelihood
from mmfuse.methods.generative.vae._refine import Lambda
from mmfuse.methods.generative.vae._seen import Seen

from ._cases import Case

ASCENT = 4000  # steps to the fixed point


def _f(case: Case, name: str):
  return jnp.asarray(case.inputs[name], jnp.float32)


def _explain(case: Case):
  w, b, x, s2 = (_f(case, n) for n in ("W", "b", "x", "s2"))
  said = lambda m, z: z @ w[m] + b[m].reshape((1,) * (z.ndim - 1) + (-1,))
  return tuple(
    lambda z, m=m: Likelihood("normal", s2[m] ** 0.5).log_prob(said(m, z), x[m])
    for m in range(x.shape[0])
  )


def _present(case: Case):
  return jnp.ones(_f(case, "x").shape[:2], bool)


def _exact(rows: int, width: int):
  """Draws [2 L, B, L] whose mean is the expectation of any quadratic function of a Gaussian."""
  points = jnp.concatenate([jnp.eye(width), -jnp.eye(width)]) * width**0.5
  return jnp.broadcast_to(points[:, None], (2 * width, rows, width))


def elbo_gradient(case: Case) -> dict:
  q, explain, present = Lambda(_f(case, "mu"), _f(case, "lv")), _explain(case), _present(case)
  eps = _f(case, "eps")[0]
  g = _refine.elbo_gradient(explain, present, q, eps)
  return {
    "elbo": _refine.elbo(explain, present, q, eps),
    "g_mu": g.mu,
    "g_lv": g.lv,
    "elbo_analytic": _refine.elbo(explain, present, q, _exact(*q.mu.shape)),
  }


def refined(case: Case) -> dict:
  q, explain, present = Lambda(_f(case, "mu"), _f(case, "lv")), _explain(case), _present(case)
  if "W1" in case.inputs:
    names = {"hidden": "1", "proposal": "u", "gate": "g"}
    layer = lambda n: {"kernel": _f(case, f"W{n}"), "bias": _f(case, f"b{n}")}
    update = _refine.gated({k: layer(n) for k, n in names.items()})
  else:
    update = _refine.ascent(case.hp["lr"])
  path = _refine.refine(explain, present, q, _f(case, "eps")[: int(case.hp["T"])], update)
  exact = _exact(*q.mu.shape)
  along = [_refine.elbo(explain, present, Lambda(*at), exact) for at in zip(*path)]
  return {"mu_t": path.mu, "lv_t": path.lv, "elbo_t": jnp.stack(along)}


def align(case: Case) -> dict:
  mu, lv = _f(case, "muT"), _f(case, "lvT")
  students = _f(case, "mu_m"), _f(case, "lv_m")
  seen = lambda mus, lvs: Seen(mus, lvs, jnp.ones(mus.shape[:2], bool), jnp.ones(mus.shape[1]), ())
  wide = lambda x: jnp.broadcast_to(x[None], students[0].shape)
  loss = lambda mus, lvs, mu, lv: alignment(mu, lv, seen(mus, lvs)).mean()
  value, (g_mu, g_lv, *teacher) = jax.value_and_grad(loss, (0, 1, 2, 3))(*students, mu, lv)
  nothing = sum(jnp.abs(g).sum() for g in teacher)  # the teacher is a constant
  return {
    "kl_forward": kl_between(wide(mu), wide(lv), *students),
    "kl_reverse": kl_between(*students, wide(mu), wide(lv)),
    "loss": case.hp["alpha"] * value + nothing,
    "g_mu_m": g_mu,
    "g_lv_m": g_lv,
  }


def fixed_point(case: Case) -> dict:
  """Where ascent on the exact ELBO ends, from N(0, 1), with all modalities and with each alone."""
  explain, everything = _explain(case), _present(case)
  w, s2 = _f(case, "W"), _f(case, "s2")
  rows, width = everything.shape[1], w.shape[1]
  precision = jnp.eye(width) + sum(w[m] @ w[m].T / s2[m] for m in range(len(s2)))
  rate = 1.0 / jnp.trace(precision)
  noises = jnp.broadcast_to(_exact(rows, width)[None], (ASCENT, 2 * width, rows, width))

  def end(present):
    start = Lambda(jnp.zeros((rows, width)), jnp.zeros((rows, width)))
    path = _refine.refine(explain, present, start, noises, _refine.ascent(rate))
    return Lambda(path.mu[-1], path.lv[-1])

  q = end(everything)
  alone = [end(everything & (jnp.arange(len(s2)) == m)[:, None]) for m in range(len(s2))]
  return {
    "mu": q.mu,
    "var": jnp.exp(q.lv[0]),
    "elbo": _refine.elbo(explain, everything, q, _exact(rows, width)),
    "uni_mu": jnp.stack([a.mu for a in alone]),
    "uni_var": jnp.stack([jnp.exp(a.lv[0]) for a in alone]),
  }
