"""AGM, PMR, re-learning and greedy on parity cases: a case -> {output name: value}."""

import re

import jax
import jax.numpy as jnp

from mmfuse import masks, objectives
from mmfuse.balancing import _agm
from mmfuse.core import Batch, Clock, Outputs
from mmfuse.methods.balancing import _greedy, _prototypes, _relearning
from mmfuse.methods.balancing._agm import agm_objective
from mmfuse.methods.balancing._shapley_logits import shapley_logits

from ._cases import Case

CLOCK = Clock(*(jnp.int32(n) for n in (0, 0, 0, 1, 1)))


def _float(x):
  return jnp.asarray(x, jnp.float32)


def _by_prefix(case: Case, prefix: str) -> dict:
  return {k.removeprefix(prefix): v for k, v in case.inputs.items() if k.startswith(prefix)}


def _cap(case: Case):
  return case.hp["cap"] if case.hp["cap"] < float("inf") else None


# AGM


def agm(case: Case) -> dict:
  """One step of the objective on the recorded net; modalities are named by their first letter."""
  names = {m[0]: m for m in _by_prefix(case, "x_")}
  history = {k.split("_")[-1]: v for k, v in _by_prefix(case, "hist_").items()}
  params = {k: _float(v) for k, v in _by_prefix(case, "p_net_").items()}
  label = jnp.asarray(case.inputs["label"], jnp.int32)
  size = label.shape[0]
  inputs = {s: _float(case.inputs[f"x_{m}"]) for s, m in names.items()}
  batch = Batch(inputs, label, masks.full(names, size), jnp.ones(size), jnp.arange(size))
  objective = agm_objective(
    names, alpha=case.hp["alpha"], cap=_cap(case), padded="exact", zeros="gradient"
  )
  steps = jnp.float32(case.hp["n_previous_steps"])
  before = objective.init(batch, None)._replace(
    running={s: _float(history[s]) for s in names}, steps=dict.fromkeys(names, steps)
  )

  def encode(params, inputs):
    return {
      s: jnp.tanh(
        x @ params[f"enc_{names[s]}_weight"].T + params[f"enc_{names[s]}_bias"].reshape(1, -1)
      )
      for s, x in inputs.items()
    }

  def heads(params, features):
    """A linear head that is not additive: its last term joins all features."""
    h = jnp.concatenate([features[s] for s in names], -1)
    weight = params["head_fc_weight"]
    joint = 0.15 * jnp.mean(h**2, -1, keepdims=True) * jnp.arange(weight.shape[0])[None, :]
    return h @ weight.T + params["head_fc_bias"].reshape(1, -1) + joint

  @jax.jit
  def run(params):
    features = encode(params, inputs)
    losses, memory = objective.apply(
      Outputs(heads(params, features), {}, features),
      batch,
      before,
      clock=CLOCK,
      encode=lambda x, mask: encode(params, x),
      heads=lambda h, mask: Outputs(heads(params, h)),
    )
    return losses["fused"], memory

  grads, after = jax.jit(jax.grad(run, has_aux=True))(params)
  subsets = {}
  for subset in masks.combinations(list(names)):
    kept = {s: x if s in subset else jnp.zeros_like(x) for s, x in inputs.items()}
    subsets[subset] = heads(params, encode(params, kept))
  phi = shapley_logits(subsets)
  scores, _ = _agm.agm_scores(phi, label)
  ratios = _agm.agm_ratios(scores)
  targets = _agm.agm_ratios(before.running)
  out = {f"g_net_{k}": g for k, g in grads.items()}
  for s in names:
    out |= {
      f"out_{s}": phi[s],
      f"score_{s}": scores[s],
      f"ratio_{s}": ratios[s],
      f"opt_ratio_{s}": targets[s],
      f"coeff_{s}": after.coefficients[s],
      f"new_hist_{s}": after.running[s],
    }
  return out


def agm_balance_benchmark(case: Case) -> dict:
  """A public re-implementation: no empty-set term, and the exponent's sign reversed."""
  history = {m: _float(v) for m, v in _by_prefix(case, "hist_").items()}
  logits = {tuple(k.split("_")): _float(v) for k, v in _by_prefix(case, "logits_").items()}
  phi = shapley_logits(logits, "released")
  scores, _ = _agm.agm_scores(phi, jnp.asarray(case.inputs["label"], jnp.int32))
  ks = _agm.agm_coefficients(scores, history, case.hp["alpha"], _cap(case), "released")
  return {
    f"{kind}_{m}": v
    for kind, values in (("out", phi), ("score", scores), ("coeff", ks))
    for m, v in values.items()
  }


# PMR


def pmr_step(case: Case) -> dict:
  """Prototype logits, scores, coefficients, losses and gradients of one step of M = 2."""
  label = jnp.asarray(case.inputs["label"], jnp.int32)
  features = {m: _float(v) for m, v in _by_prefix(case, "feat_").items()}
  protos = {m: _float(v) for m, v in _by_prefix(case, "proto_").items()}
  weight, bias = _float(case.inputs["head_weight"]), _float(case.inputs["head_bias"])
  size, names = label.shape[0], sorted(features)

  @jax.jit
  def parts(features):
    logits = {m: _prototypes.prototype_logits(features[m], protos[m]) for m in names}
    right = {
      m: jnp.take_along_axis(jax.nn.softmax(logits[m]), label[:, None], 1).mean() for m in names
    }
    losses = {m: objectives.row_losses(logits[m], label).mean() for m in names}
    return logits, right, losses

  def total(features, weight):
    _, right, losses = parts(features)
    ks = _prototypes.pmr_coefficients(jax.lax.stop_gradient(right), case.hp["alpha"])
    fused = jnp.concatenate([features[m] for m in names], -1) @ weight.T + bias.reshape(1, -1)
    return objectives.row_losses(fused, label).mean() + sum(ks[m] * losses[m] for m in names)

  value, (by_feature, by_head) = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(
    features, weight
  )
  logits, right, losses = parts(features)
  ks = _prototypes.pmr_coefficients(right, case.hp["alpha"])
  first, second = names
  out = {
    "loss": value,
    "grad_head_w": by_head,
    f"ratio_{first}": right[first] / right[second],
    "beta_audio": ks[first],
    "lam_visual": ks[second],
  }
  for m in names:
    out |= {
      f"sim_{m}": logits[m],
      f"score_{m}": right[m] * size,
      f"loss_proto_{m}": losses[m],
      f"grad_feat_{m}": by_feature[m],
    }
  return out


def pmr_prototypes(case: Case) -> dict:
  """Class means over the recorded batches, with the old ones from the second epoch on."""
  label = jnp.asarray(case.inputs["label"], jnp.int32).reshape(-1)
  out = {}
  for m, features in _by_prefix(case, "feat_").items():
    flat = _float(features).reshape(-1, features.shape[-1])
    sums, counts = _prototypes.class_sums(
      flat, label, jnp.ones(label.shape[0]), int(case.hp["n_classes"])
    )
    old = _float(case.inputs[f"old_{m}"]) if case.hp["epoch"] > 0 else None
    out[f"proto_{m}"] = _prototypes.prototypes(
      sums, counts, old, momentum=case.hp["momentum"], variant="released"
    )
  return out


# Re-learning and greedy


def relearning_purity(case: Case) -> dict:
  """Purity of recorded clusters."""
  return {"purity": _relearning.purity(case.inputs["label"], case.inputs["cluster"])}


def greedy_speed(case: Case) -> dict:
  """The accumulators over recorded gradients and weights."""
  pattern = re.compile(r"t(\d+)_([gw])_(.+)")
  steps: dict = {}
  for key, value in case.inputs.items():
    step, kind, leaf = pattern.fullmatch(key).groups()
    steps.setdefault(int(step), {"g": {}, "w": {}})[kind][leaf] = value
  leaves = list(steps[0]["w"])
  names = sorted(
    re.fullmatch(r"modality_encoder_(.+)_[^_]+", k)[1]
    for k in leaves
    if k.startswith("modality_encoder_")
  )

  def nested(flat):
    """The recorded leaves in the places of `LateFusion` with `Mmtm`."""
    out: dict = {m: {} for m in names} | {"heads": {"fused": {"squeeze": {}}}}
    block = out["heads"]["fused"]
    block |= {f"excite_{m}": {} for m in names}
    for key, value in flat.items():
      owner = next((m for m in names if f"_{m}_" in key), None)
      if key.startswith("modality_encoder_"):
        out[owner][key] = _float(value)
      else:
        block["squeeze" if owner is None else f"excite_{owner}"][key] = _float(value)
    return out

  rule, speeds = _greedy.track_speed(tuple(names)), []
  state = rule.init(nested(steps[0]["w"]))
  for step in sorted(steps):
    _, state = rule.update(nested(steps[step]["g"]), state, nested(steps[step]["w"]))
    speeds.append(_greedy.speed_difference(state))
  return {"speed": jnp.stack(speeds)}
