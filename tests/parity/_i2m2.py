"""I2M2 on parity cases: products and mixtures of experts, and the gradients that reach each expert."""

import jax
import jax.numpy as jnp
import optax

from mmfuse import fusion, masks, objectives, train

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
