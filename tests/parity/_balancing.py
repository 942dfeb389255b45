"""Balancing rules on parity cases: each function maps a case to {output name: value}."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import balancing
from mmfuse.balancing import _bogc, _cagrad, _laplace, _mgda, _mimo, _min_norm, _ogm
from mmfuse.core import Clock

from ._cases import Case


def _float(x):
  return jnp.asarray(x, jnp.float32)


def _apply(rule, grads, **extra):
  """One update on a single leaf of stacked gradients [K, D]: (direction [D], state)."""
  return rule.update({"x": grads}, rule.init({"x": grads[0]}), **extra)


# OGM-GE


def _by_suffix(case: Case, prefix: str) -> dict:
  return {k.removeprefix(prefix): v for k, v in case.inputs.items() if k.startswith(prefix)}


def ogm_ge(case: Case) -> dict:
  """Scores, ratios, coefficients, gradients; `in/out_<short>` logits, `in/z_<modality>` noise."""
  logits, noise = _by_suffix(case, "out_"), _by_suffix(case, "z_")
  short = {m: next(s for s in logits if m.startswith(s)) for m in noise}
  label = jnp.asarray(case.inputs["label"], jnp.int32)
  scores = balancing.scores({m: _float(logits[short[m]]) for m in noise}, label)
  params = {}
  for m, z in noise.items():
    params[m] = {"w": _float(case.inputs.get(f"grad_{m}_w", np.zeros_like(z)))}
    if f"grad_{m}_b" in case.inputs:
      params[m]["b"] = _float(case.inputs[f"grad_{m}_b"])
  given = jax.tree.map(jnp.zeros_like, params)
  for m, z in noise.items():
    given[m]["w"] = _float(z)

  alpha, out = case.hp["alpha"], {}
  for prefix, rule in (("ogm", balancing.ogm), ("ge", balancing.ogm_ge)):
    tx = rule(alpha, variant="released")
    updates, state = tx.update(
      params, tx.init(params), params, scores=scores, key=jax.random.key(0), noise=given
    )
    out |= {
      f"{prefix}_{m}_{leaf}": u for m, leaves in updates.items() for leaf, u in leaves.items()
    }
  ratios = _ogm.discrepancy_ratios(scores)
  for m, s in short.items():
    out |= {
      f"score_{s}": scores[m] * label.shape[0],
      f"ratio_{s}": ratios[m],
      f"coeff_{s}": state.coefficients[m],
    }
  return out


def ogm_balance_benchmark(case: Case) -> dict:
  """The forms of a public re-implementation; its M = 3 score is of cosines of right answers."""
  logits = {m: _float(z) for m, z in _by_suffix(case, "logits_").items()}
  label, size = jnp.asarray(case.inputs["label"], jnp.int32), case.inputs["label"].shape[0]
  if "GE3" not in case.name and len(logits) > 2:
    right = {m: jnp.argmax(z, -1) == label for m, z in logits.items()}
    scores = balancing.scores({m: jnp.cos(z) for m, z in logits.items()}, label, right)
    scores = {m: s * right[m].sum() for m, s in scores.items()}
  else:
    scores = {m: s * size for m, s in balancing.scores(logits, label).items()}
  form = "sum" if "GE3" in case.name or len(logits) == 2 else "min"
  scores = {m: scores[m] for m in logits}  # that code numbers the modalities in the order given
  alpha = case.hp["alpha"]
  ratios = _ogm.discrepancy_ratios(scores, form=form)
  coefficients = _ogm.ogm_coefficients(scores, alpha, form=form)
  return {f"ratio_{m}": r for m, r in ratios.items()} | {
    f"coeff_{m}": k for m, k in coefficients.items()
  }


# MMPareto and the min-norm solver


def mmpareto(case: Case) -> dict:
  """Per encoder: cosine, weights, direction; `in/<encoder>_g_{mm,uni}_<tensor>`."""
  grads: dict = {}
  for key, value in case.inputs.items():
    encoder, objective, leaf = re.fullmatch(r"(.+)_g_(mm|uni)_(.+)", key).groups()
    grads.setdefault(encoder, {}).setdefault(leaf, {})[objective] = value
  encoders = sorted(grads)
  num = 1 + len(encoders)
  stacked: dict = {}
  for i, encoder in enumerate(encoders):
    for leaf, pair in grads[encoder].items():
      rows = np.zeros((num, *pair["mm"].shape), np.float32)
      rows[0], rows[1 + i] = pair["mm"], pair["uni"]
      stacked.setdefault(encoder, {})[leaf] = jnp.asarray(rows)
  rule = balancing.mmpareto(num, case.hp["gamma"], modalities=encoders)
  direction, state = rule.update(stacked, rule.init(jax.tree.map(lambda g: g[0], stacked)))
  out = {f"{e}_grad_{leaf}": d for e, leaves in direction.items() for leaf, d in leaves.items()}
  for i, encoder in enumerate(encoders):
    own = state.weights[1 + i]
    out |= {f"{encoder}_cos": state.cosines[1 + i], f"{encoder}_k": jnp.stack([1.0 - own, own])}
  return out


_solve = jax.jit(_min_norm.min_norm, static_argnames="clip_ends")


def min_norm(case: Case) -> dict:
  """The released solver on given vectors: float32 products, float64 iterations, as in that code."""
  grads = _float(case.inputs["grads"])
  gram = np.asarray(grads @ grads.T, np.float64)
  with jax.enable_x64(True):
    weights = np.asarray(_solve(jnp.asarray(gram), clip_ends=True))
    # Of two vectors that code reports the norm at the end point itself, not at .999 of it.
    exact = weights if len(gram) > 2 else np.asarray(_solve(jnp.asarray(gram)))
  return {"sol": weights, "min_norm_sq": exact @ gram @ exact}


# MIMO


def mimo_kernel(case: Case) -> dict:
  """Weights, smoothed maximum, objective and direction, the direction by both routes."""
  lam, mu = case.hp["lam"], case.hp["mu"]
  own = _float(case.inputs["f_uni"])
  losses = jnp.concatenate([_float(case.inputs["f_mm"])[None], own])
  grads = jnp.concatenate([_float(case.inputs["grad_mm"])[None], _float(case.inputs["grad_uni"])])
  direction, _ = _apply(balancing.mimo(losses.shape[0], lam, mu), grads, losses=losses)
  scalarised = jax.grad(lambda f: _mimo.mimo_objective(f, lam, mu))(losses) @ grads
  np.testing.assert_allclose(direction["x"], scalarised, rtol=1e-5, atol=1e-6)
  smooth = _mimo.mimo_objective(losses.at[0].set(0.0), 1.0, mu)
  pure = balancing.mimo(losses.shape[0], 1.0, mu)
  return {
    "weights": _apply(pure, grads, losses=losses)[1].weights[1:],
    "smooth_max": smooth,
    "smooth_max_mean_version": smooth - mu * np.log(own.shape[0]),
    "objective": _mimo.mimo_objective(losses, lam, mu),
    "direction": direction["x"],
  }


def mimo_trajectory(case: Case) -> dict:
  """Gradient steps, shortened to length 1 where longer, on f_m = |A_m x - b_m|^2 / 2."""
  a, b = _float(case.inputs["A"]), _float(case.inputs["b"])
  rule = balancing.mimo(a.shape[0], case.hp["lam"], case.hp["mu"])

  def losses_of(theta):
    return 0.5 * jnp.sum((a @ theta - b) ** 2, axis=1)

  @jax.jit
  def step(theta, state):
    direction, state = rule.update(
      {"x": jax.jacobian(losses_of)(theta)}, state, losses=losses_of(theta)
    )
    d = direction["x"]
    return theta - case.hp["eta"] * d / jnp.maximum(1.0, jnp.linalg.norm(d)), state

  theta = _float(case.inputs["theta0"])
  path, state = [theta], rule.init({"x": theta})
  for _ in range(case.hp["steps"]):
    theta, state = step(theta, state)
    path.append(theta)
  return {"theta": jnp.stack(path), "losses": jnp.stack([losses_of(t) for t in path])}


# Multi-objective baselines


def mgda(case: Case) -> dict:
  """`mgda_<normalisation>_...`; the direction combines the normalised gradients."""
  named = case.name.split("_")[1]
  normalize = {"lossp": "loss+"}.get(named, named)
  grads, losses = _float(case.inputs["grads"]), _float(case.inputs["losses"])
  rule = balancing.mgda(grads.shape[0], normalize=normalize, clip_ends=True)
  direction, _ = _apply(rule, grads, losses=losses)
  weights, _ = _mgda.mgda_weights(grads @ grads.T, losses, normalize=normalize, clip_ends=True)
  return {"sol": weights, "direction": direction["x"]}


def pcgrad(case: Case) -> dict:
  """With the recorded order."""
  grads = _float(case.inputs["grads"])
  direction, state = _apply(balancing.pcgrad(grads.shape[0]), grads, order=case.inputs["order"])
  return {"direction": direction["x"], "batch_weight": state.weights}


def cagrad(case: Case) -> dict:
  """Direction and simplex weights."""
  grads = _float(case.inputs["grads"])
  c, rescale = case.hp["calpha"], int(case.hp["rescale"])
  direction, _ = _apply(balancing.cagrad(grads.shape[0], c, rescale=rescale), grads)
  return {
    "direction": direction["x"],
    "w": _cagrad.cagrad_weights(grads @ grads.T, c, rescale=rescale)[0],
  }


def stch(case: Case) -> dict:
  """A sequence of losses; the first `n_warm_steps` are the averaging epoch."""
  losses = _float(case.inputs["losses"])
  rule = balancing.stch(losses.shape[1], case.hp["mu"], warmup=0)
  state, out = rule.init({}), []
  for t, now in enumerate(losses):
    epoch = jnp.int32(t >= case.hp["n_warm_steps"])
    clock = Clock(jnp.int32(t), epoch, jnp.int32(0), jnp.int32(1), jnp.int32(2))
    weights, state = rule.weigh(now, state, None, clock=clock)
    out.append(weights)
  return {"loss_weights": jnp.stack(out)}


# BOGC


def bogc_evidence(case: Case) -> dict:
  """Evidence, opinions, weights and the calibrated direction."""

  @jax.jit
  def fuse(mean, var):
    evidence = _bogc.evidence(var)
    belief, uncertainty = _bogc.fuse_opinions(evidence)
    weights = _bogc.evidence_weights(var)
    return {
      "evidence": evidence,
      "belief": belief,
      "uncertainty": uncertainty,
      "weights": weights,
      "direction": jnp.sum(weights * mean, axis=0),
    }

  return fuse(_float(case.inputs["mean"]), _float(case.inputs["var"]))


def bogc_laplace(case: Case) -> dict:
  """Posterior of the last layer and the moments of the feature gradients."""
  features, label = _float(case.inputs["features"]), jnp.asarray(case.inputs["label"], jnp.int32)

  @jax.jit
  def moments(weights, normals):
    mean, cov = _laplace.laplace_posterior(
      weights, features, label, prior_variance=case.hp["gamma"]
    )
    first, second, loss = _laplace.gradient_moments(
      mean, cov, features, label, normals, power=case.hp["sqrt_power"]
    )
    return {
      "post_mean": mean,
      "post_cov": cov,
      "grad_mean": first,
      "grad_var": second,
      "mean_sample_loss": loss,
    }

  return moments(_float(case.inputs["W"]), _float(case.inputs["z"]))


def bogc_precision(case: Case) -> dict:
  """Inverse-variance weighting of [B, K, d]."""
  return {
    "direction": _laplace.precision_weighted(
      _float(case.inputs["mean"]), _float(case.inputs["var"])
    )
  }
