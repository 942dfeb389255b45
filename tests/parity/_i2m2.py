"""I2M2 on parity cases: products and mixtures of experts, gradients of each expert, LeNet, AUPRC."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import encoders, fusion, masks, metrics, objectives, train
from mmfuse.encoders import _norm

from ._cases import Case

RECORDED_FLOAT32 = dict.fromkeys(("grad_1", "grad_2", "grad_3", "grad_inter"), 3e-5)


def _experts(case: Case) -> dict[str, jax.Array]:
  """{"1": [B, C], ..., "inter"}, whether given one by one or stacked [E, B, C]."""
  if "logits" in case.inputs:
    stacked = jnp.asarray(case.inputs["logits"], jnp.float32)
    return {f"{i:02d}": z for i, z in enumerate(stacked)}
  return {
    k.removeprefix("logits_"): jnp.asarray(v, jnp.float32)
    for k, v in case.inputs.items()
    if k.startswith("logits_")
  }


def _trained(case: Case):
  """(log-probabilities, loss, gradients clipped over all experts)."""
  logits, label = _experts(case), jnp.asarray(case.inputs["labels"], jnp.int32)
  mask = masks.full(logits, len(label))

  def loss(logits):
    out = fusion.product_logits(logits, mask)
    return jnp.mean(objectives.row_losses(out, label)), out

  (value, out), grads = jax.value_and_grad(loss, has_aux=True)(logits)
  tx = train.clip_norm(float(case.hp["clip_norm"])) if "clip_norm" in case.hp else optax.identity()
  return out, value, tx.update(grads, tx.init(grads))[0]


def product(case: Case) -> dict:
  """Log-probabilities, loss, and each expert's gradient."""
  out, loss, grads = _trained(case)
  found = {"log_probs": out, "log_probs_train": out, "loss": loss}
  found["grads"] = jnp.stack([grads[e] for e in sorted(grads)])
  return found | {f"grad_{e}": g for e, g in grads.items()}


def intra(case: Case) -> dict:
  """Trained as a product, and tested as a mixture as the authors do."""
  experts = jnp.stack(list(_experts(case).values()), 1)
  gate = jnp.zeros(experts.shape[:2])
  mixed = fusion.mixture_logits(gate, experts, jnp.ones(gate.shape, bool))
  return product(case) | {"log_mixture_test": mixed}


def lenet(case: Case) -> dict:
  """The encoder in both modes, and what a training pass does to the running averages.

  Torch averages the unbiased variance, n / (n - 1) of ours, n = B H W of the block.
  """
  weight = lambda name: jnp.asarray(case.inputs[f"w.{name}"], jnp.float32)
  x = jnp.asarray(case.inputs["x_nchw"], jnp.float32).transpose(0, 2, 3, 1)
  layers = int(case.hp["additional_layers"])
  module = encoders.LeNet(channels=int(case.hp["channels"]), layers=layers)
  blocks = range(layers + 1)
  params = {
    f"conv{i}": {"kernel": weight(f"convs.{i}.weight").transpose(2, 3, 1, 0)} for i in blocks
  } | {
    f"norm{i}": {"scale": weight(f"bns.{i}.weight"), "bias": weight(f"bns.{i}.bias")} for i in blocks
  }
  stats = {
    f"norm{i}": {
      "mean": weight(f"bns.{i}.running_mean"),
      "var": weight(f"bns.{i}.running_var"),
    }
    for i in blocks
  }
  variables, here = {"params": params, "batch_stats": stats}, jnp.ones(len(x), bool)
  trained, moved = module.apply(variables, x, here, train=True, mutable=["batch_stats"])
  out = {"eval": module.apply(variables, x, here, train=False), "train": trained}
  side = np.asarray(x.shape[1:3])
  for i in blocks:
    count = len(x) * int(side.prod())
    found, before = moved["batch_stats"][f"norm{i}"], stats[f"norm{i}"]
    kept = _norm.MOMENTUM * before["var"]
    out[f"after_train.bns.{i}.running_mean"] = found["mean"]
    out[f"after_train.bns.{i}.running_var"] = kept + (found["var"] - kept) * count / (count - 1)
    side = np.maximum(side // 2, 1)
  return out


def auprc(case: Case) -> dict:
  """Average precision of one score."""
  return {"ap": metrics.average_precision(case.inputs["scores"], case.inputs["labels"])}


def gru(case: Case) -> dict:
  """All states, projected or not, side by side.

  Torch stacks the gates r, z, n along the rows and gives each two biases; those of r and z only
  ever occur as a sum, which is how Flax keeps them.
  """
  w = {k.removeprefix("w."): jnp.asarray(v, jnp.float32) for k, v in case.inputs.items()}
  gates = lambda name: jnp.split(w[f"gru.{name}_l0"], 3)
  (ir, iz, i_n), (hr, hz, hn) = gates("weight_ih"), gates("weight_hh")
  (b_ir, b_iz, b_in), (b_hr, b_hz, b_hn) = gates("bias_ih"), gates("bias_hh")
  params = {
    "cell": {
      "ir": {"kernel": ir.T, "bias": b_ir + b_hr},
      "iz": {"kernel": iz.T, "bias": b_iz + b_hz},
      "in": {"kernel": i_n.T, "bias": b_in},
      "hr": {"kernel": hr.T},
      "hz": {"kernel": hz.T},
      "hn": {"kernel": hn.T, "bias": b_hn},
    },
  }
  width = None
  if "linear.weight" in w:
    params["projection"] = {"kernel": w["linear.weight"].T, "bias": w["linear.bias"]}
    width = len(w["linear.bias"])
  module = encoders.GRU(int(case.hp["hidden"]), "flatten", width)
  x = w["x"]
  return {"y": module.apply({"params": params}, x, jnp.ones(len(x), bool), train=False)}
