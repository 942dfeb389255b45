"""Unseen modality interaction: losses of a step, slots, branches, pseudo-labels."""

import jax
import jax.numpy as jnp

from mmfuse.methods.missing import _slots as slots
from mmfuse.methods.missing import _unseen_losses as losses
from mmfuse.names import CLASSIFICATION

from ._cases import Case


def _float(x) -> jax.Array:
  return jnp.asarray(x, jnp.float32)


def _ones(label) -> jax.Array:
  return jnp.ones(label.shape[0], jnp.float32)


def label_smoothing(case: Case) -> dict:
  label = jnp.asarray(case.inputs["label"], jnp.int32)
  loss = lambda z: losses.smoothed_loss(z, label, _ones(label), case.hp["smoothing"])
  value, grad = jax.value_and_grad(loss)(_float(case.inputs["logits"]))
  return {"loss": value, "grad": grad}


def token_distance(case: Case) -> dict:
  features, tokens = _float(case.inputs["features"]), _float(case.inputs["tokens"])
  return {"distance": losses.square_distances(features.mean(1), tokens) / tokens.shape[1]}


def step(case: Case) -> dict:
  """The loss and its gradients in the released form, the parts in the guarded one."""
  label = jnp.asarray(case.inputs["label"], jnp.int32)
  weight, hp = _ones(label), case.hp
  names = [k.removesuffix("_mask") for k in case.inputs if k.endswith("_mask")]
  mask = {m: jnp.asarray(case.inputs[f"{m}_mask"]) > 0 for m in names}
  pseudo = {m: _float(case.inputs[f"{m}_pseudo"]) for m in names}
  alpha = hp["pseudo_scale"] / hp["n_classes"]

  def parts(z, features, tokens, variant):
    latent = {m: f.mean(1) for m, f in features.items()}
    return (
      losses.smoothed_loss(z[:, 0], label, weight, hp["smoothing"]),
      alpha * losses.pseudo_loss(z[:, 1], pseudo, mask, weight, variant=variant),
      losses.alignment_loss(latent, tokens, label, mask, weight, CLASSIFICATION),
    )

  def released(*at):
    supervised, weighted, alignment = parts(*at, "released")
    return supervised + weighted + hp["align_scale"] * alignment

  at = (
    _float(case.inputs["logits"]),
    {m: _float(case.inputs[m]) for m in names},
    _float(case.inputs["tokens"]),
  )
  loss, (of_logits, of_features, of_tokens) = jax.value_and_grad(released, (0, 1, 2))(*at)
  supervised, weighted, alignment = parts(*at, "guarded")
  return {
    "loss": loss,
    "supervised": supervised,
    "pseudo_weighted": weighted,
    "alignment": alignment,
    "grad_logits": of_logits,
    "grad_tokens": of_tokens,
    **{f"grad_{m}": g for m, g in of_features.items()},
  }


def reorganization(case: Case) -> dict:
  at = tuple(_float(case.inputs[k]) for k in ("features", "position_logits"))
  square = lambda *at: jnp.square(slots.reorganise(*at)).sum()
  of_features, of_logits = jax.grad(square, (0, 1))(*at)
  projected = slots.reorganise(*at)
  return {
    "projected": projected,
    "grad_features": of_features,
    "grad_position_logits": of_logits,
  }


def branch_attention(case: Case) -> dict:
  hp = case.hp
  params = {
    "qkv": {"kernel": _float(case.inputs["qkv_w"]).T},
    "out": {"kernel": _float(case.inputs["out_w"]).T, "bias": _float(case.inputs["out_b"])},
  }
  x = slots.to_branches(_float(case.inputs["x"]), hp["branches"])
  module = slots.Attention(hp["heads"], hp["dim_head"])
  y = module.apply({"params": params}, x, jnp.ones(x.shape[:2], bool))
  return {"y": slots.from_branches(y, hp["branches"])}


def branch_average(case: Case) -> dict:
  logits = slots.mean_of_branches(_float(case.inputs["logits"]), CLASSIFICATION)
  return {"prob": jax.nn.softmax(logits)}


def _by_modality(case: Case, name: str) -> tuple[dict, dict]:
  """({m: entries of `name`}, {m: bool [B]}), modalities in their order."""
  table = _float(case.inputs[name])
  mask = jnp.asarray(case.inputs["mask"]) > 0
  names = [f"m{i:02d}" for i in range(len(table))]
  return dict(zip(names, table)), {m: mask[:, i] for i, m in enumerate(names)}


def fusion_and_tokens(case: Case) -> dict:
  features, mask = _by_modality(case, "features")
  tokens = _float(case.inputs["tokens"])
  far = jnp.stack([losses.square_distances(f.mean(1), tokens) for f in features.values()])
  label = jnp.zeros(far.shape[1], jnp.float32)  # of a task without classes; not read
  one = lambda m: losses.alignment_loss(
    {m: features[m].mean(1)}, tokens, label, {m: mask[m]}, _ones(label), "regression"
  )
  return {
    "fused": slots.add_present(features, mask),
    "nearest_index": jnp.argmin(far, -1),
    "align_sum_per_modality": jnp.stack([one(m) * mask[m].sum() for m in features]),
  }


def pseudo_choice(case: Case) -> dict:
  pseudo, mask = _by_modality(case, "pseudo")
  label = jnp.asarray(case.inputs["label"], jnp.int32)
  return {"chosen": losses.best_pseudo(pseudo, label, mask)}
