"""MLA on parity cases: fusion weights, projections, and epochs of the alternation itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmfuse import masks, train
from mmfuse.core import Batch, Clock
from mmfuse.fusion import LateFusion
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _mla_rules

from ._cases import Case


def _float(x):
  return jnp.asarray(x, jnp.float32)


def _logits(case: Case) -> dict:
  """{"1": [B, C], ...}, whether given one by one or stacked [B, M, C]."""
  if "logits" in case.inputs:
    stacked = _float(case.inputs["logits"])
    return {f"{i + 1}": stacked[:, i] for i in range(stacked.shape[1])}
  return {k.removeprefix("logits_"): _float(v) for k, v in case.inputs.items()}


def gate_batch(case: Case) -> dict:
  """One weight per modality and batch: `w1`, `w2` or stacked `w` [M]."""
  logits = _logits(case)
  mask = masks.full(logits, next(iter(logits.values())).shape[0])
  weights = {m: w[0] for m, w in _mla_rules.entropy_weights(logits, mask, "batch").items()}
  out = {f"entropy_{m}": _mla_rules.entropies(z, mask[m], "batch")[0] for m, z in logits.items()}
  out |= {f"w{m}": w for m, w in weights.items()}
  return out | {
    "w": jnp.stack([*weights.values()]),
    "fused_logits": _mla_rules.fuse(logits, mask, "batch"),
  }


def gate_sample(case: Case) -> dict:
  """One weight per row: `w` [B, M]; `in/mask` [B, M] says what is there."""
  logits = _logits(case)
  rows = next(iter(logits.values())).shape[0]
  mask = masks.full(logits, rows)
  if "mask" in case.inputs:
    mask = {m: jnp.asarray(case.inputs["mask"][:, i] > 0) for i, m in enumerate(sorted(logits))}
  weights = _mla_rules.entropy_weights(logits, mask)
  return {
    "w": jnp.stack([weights[m] for m in sorted(weights)], -1),
    "fused_logits": _mla_rules.fuse(logits, mask),
  }


def _projected(case: Case, projection: str) -> dict:
  """Head gradients [steps, C, D] in the order of the steps."""
  features, gradients = _float(case.inputs["features"]), _float(case.inputs["head_grads"])
  state = _mla_rules.init_projection(features.shape[-1])
  found, matrices = [], []
  for i, (h, g) in enumerate(zip(features, gradients)):
    if projection == "rls":
      alpha = case.hp["alpha"]
    else:
      alpha = _mla_rules.released_alpha(
        jnp.asarray(case.inputs["batch_index"][i]), case.hp["len_dataloader"], case.hp["alpha0"]
      )
      assert int(case.inputs["exp_count"][i]) == int(state.updates)
    state = _mla_rules.step_projection(state, h.mean(0), alpha, projection)
    found.append(_mla_rules.project(state, g.T, projection).T)
    matrices.append(state.matrix)
  return {"modified_grads": jnp.stack(found), "P": jnp.stack(matrices)}


def rls(case: Case) -> dict:
  return _projected(case, "rls")


def released(case: Case) -> dict:
  return _projected(case, "released")


def balance_benchmark(case: Case) -> dict:
  return _projected(case, "bb_add")


def plain_linear(case: Case) -> dict:
  """The projection as the authors' program calls it does nothing: our "off"."""
  gradients = _float(case.inputs["head_grads"])
  width = case.inputs["features"].shape[-1]
  eye = _mla_rules.init_projection(width).matrix
  return {"modified_grads": gradients, "P": jnp.broadcast_to(eye, (len(gradients), width, width))}


class _Encoder(nn.Module):
  """tanh(x W + b), the stand-in of the fixtures."""

  features: int

  @nn.compact
  def __call__(self, x, mask, *, train):
    return jnp.tanh(nn.Dense(self.features, name="linear")(x))


ORDER = ("audio", "visual", "text")  # of the authors


def epoch(case: Case) -> dict:
  """An epoch of the step: small encoders, SGD with momentum and decay, torch 1.8 by the name."""
  order = [m for m in ORDER if m in case.inputs]
  weights = {
    k.removeprefix("w0."): _float(v) for k, v in case.inputs.items() if k.startswith("w0.")
  }
  place = {"fusion_module.fc_out": ("heads", "fused")}
  place |= {f"{m}_net": (m, "linear") for m in order}
  classes, width = weights["fusion_module.fc_out.weight"].shape
  method = METHODS["mla"](
    LateFusion({m: _Encoder(width) for m in order}, classes),
    tx=optax.chain(
      optax.add_decayed_weights(case.hp["weight_decay"]),
      optax.trace(case.hp["momentum"]),
      optax.scale(-case.hp["lr"]),
    ),
    projection="released" if case.hp["gs_active"] else "off",
    order=order,
    coast="torch18" in case.name,
  )
  labels = jnp.asarray(case.inputs["labels"], jnp.int32)
  batches, size = labels.shape

  def batch(i):
    inputs = {m: _float(case.inputs[m][i]) for m in order}
    mask = masks.full(order, size)
    return Batch(inputs, labels[i], mask, jnp.ones(size), jnp.arange(size))

  state = train.initial(method, jax.random.key(0), batch(0))
  params = {}
  for layer, (top, name) in place.items():
    params.setdefault(top, {})[name] = {
      "kernel": weights[f"{layer}.weight"].T,
      "bias": weights[f"{layer}.bias"],
    }
  state = state._replace(params={k: params[k] for k in state.params})
  step, losses = jax.jit(method.phases[0].step), []
  for i in range(batches):
    clock = Clock(*(jnp.int32(n) for n in (i, 0, i, batches, 1)))
    state, log = step(state, batch(i), jax.random.key(i), clock)
    own = [log[f"loss/{m}"] for m in order]
    # The authors log a fixed mixture of audio and visual, text or not.
    mixed = case.hp["av_alpha"] * own[0] + (1 - case.hp["av_alpha"]) * own[1]
    losses.append(jnp.stack([mixed, *own]))
  memory = state.memory["mla"]
  out = {
    "epoch_losses": jnp.stack(losses).mean(0),
    "P_final": memory.matrix if memory else jnp.eye(width),
  }
  for layer, (top, name) in place.items():
    leaf = state.params[top][name]
    out |= {f"w1.{layer}.weight": leaf["kernel"].T, f"w1.{layer}.bias": leaf["bias"]}
  return out
