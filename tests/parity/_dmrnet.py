"""DMRNet on parity cases. Their modalities are columns of a mask, their linear weights (out, in)."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import fusion, masks, objectives
from mmfuse.methods.missing import _combinations, _dmrnet_mining

from ._cases import Case


def _mask(columns) -> dict:
  """{name: bool [B]} of 0/1 [B, M]; the names sort as the columns do."""
  return {f"m{i:02d}": columns[:, i] > 0 for i in range(columns.shape[1])}


def _patterns(num: int) -> np.ndarray:
  """float [C, M], a combination a row."""
  names = [f"m{i:02d}" for i in range(num)]
  return np.asarray([[float(m in c) for m in names] for c in masks.combinations(names)])


def drop(case: Case) -> dict:
  """Features x<name> [B, ...], or [B * frames, ...] with the frames of a row side by side."""
  given = {k: jnp.asarray(case.inputs[k]) for k in sorted(case.inputs) if k.startswith("x")}
  index = case.inputs["combo_index"]
  chosen = jnp.asarray(_patterns(len(given)), jnp.float32)[index]
  features = {k: x.reshape(index.shape[0], -1, *x.shape[1:]) for k, x in given.items()}
  kept = masks.fill(features, dict(zip(given, (chosen > 0).T)))
  dropped = {f"y{k[1:]}": kept[k].reshape(given[k].shape) for k in given}
  return {**dropped, "mask": chosen}


def unbalanced(case: Case) -> dict:
  hp = case.hp
  counts = _combinations.unbalanced_counts(
    case.inputs["epoch"],
    int(hp["batch"]),
    case.outputs["counts"].shape[-1],
    np.asarray(hp["hard_index"]),
    np.asarray(hp["easy_index"]),
    start=int(hp["start_epoch"]),
    most=int(hp["max_shift"]),
  )
  return {"counts": counts}


def _variables(given: dict) -> dict:
  """Of `fusion.Gaussian`, from mu_w, mu_b, ..., lv_rv; without running statistics 0 and 1."""
  params, stats = {}, {}
  for theirs, ours in (("mu", "mean"), ("lv", "logvar")):
    get = lambda name, theirs=theirs: jnp.asarray(given[f"{theirs}_{name}"])
    params[ours] = {"kernel": get("w").T, "bias": get("b")}
    params[f"{ours}_norm"] = {"scale": get("gamma"), "bias": get("beta")}
    empty = {"mean": jnp.zeros_like(get("b")), "var": jnp.ones_like(get("b"))}
    there = f"{theirs}_rm" in given
    stats[f"{ours}_norm"] = {"mean": get("rm"), "var": get("rv")} if there else empty
  return {"params": params, "batch_stats": stats}


def _gaussian(variables: dict, h, train: bool):
  """((mean, logvar), statistics after) of rows that all count."""
  module = fusion.Gaussian(variables["params"]["mean"]["bias"].shape[0])
  rows = jnp.ones(h.shape[0], bool)
  if not train:
    return module.apply(variables, h, rows, train=False), variables["batch_stats"]
  out, new = module.apply(variables, h, rows, train=True, mutable=["batch_stats"])
  return out, new["batch_stats"]


def _moved(case: Case, old: dict, new: dict) -> dict:
  """Ours moves by .1 of the biased variance of the batch, theirs by their momentum of the unbiased one."""
  rate, rows = float(case.hp["bn_momentum_torch"]), case.inputs["features"].shape[0]
  out = {}
  for theirs, ours in (("mu", "mean"), ("lv", "logvar")):
    for short, name, scale in (("rm", "mean", 1.0), ("rv", "var", rows / (rows - 1))):
      before, after = (s[f"{ours}_norm"][name] for s in (old, new))
      batch = scale * (after - 0.9 * before) / 0.1
      out[f"new_{theirs}_{short}"] = (
        (1 - rate) * before + rate * batch if case.hp["train"] else after
      )
  return out


def head(case: Case) -> dict:
  """The probabilistic head, its losses and gradients."""
  given, train = case.inputs, bool(case.hp["train"])
  variables, scale = _variables(given), float(case.hp["kl_scale"])
  h, label = jnp.asarray(given["features"]), jnp.asarray(given["label"])
  weight = jnp.ones(h.shape[0])

  def losses(mean, std):
    logvar = 2 * jnp.log(std)
    z = fusion.draw_gaussian(mean, logvar, given["eps"]) if train else mean
    logits = z @ given["cls_w"].T + given["cls_b"][None]
    ce = objectives.weighted_mean(objectives.row_losses(logits, label), weight)
    kl = objectives.weighted_mean(objectives.kl_losses(mean, logvar), weight)
    return ce + scale * kl, {"z": z, "logits": logits, "ce": ce, "kl": kl}

  def whole(params):
    (mean, logvar), _ = _gaussian({**variables, "params": params}, h, train)
    return losses(mean, jnp.exp(logvar / 2))[0]

  (mean, logvar), after = _gaussian(variables, h, train)
  std = jnp.exp(logvar / 2)
  loss, found = losses(mean, std)
  grad_mean, grad_std = jax.grad(lambda *a: losses(*a)[0], (0, 1))(mean, std)
  grads = jax.grad(whole)(variables["params"])
  return {
    **found,
    "mu": mean,
    "std": std,
    "loss": loss,
    "grad_mu": grad_mean,
    "grad_std": grad_std,
    "grad_mu_w": grads["mean"]["kernel"].T,
    "grad_lv_w": grads["logvar"]["kernel"].T,
    **_moved(case, variables["batch_stats"], after),
  }


def dense_head(case: Case) -> dict:
  """Maps [B, D, H, W]; sigma is multiplied by `scale`."""
  last, first = (lambda x: jnp.moveaxis(x, 1, -1)), (lambda x: jnp.moveaxis(x, -1, 1))
  h, noise = last(case.inputs["x"]), last(case.inputs["eps"])
  (mean, logvar), _ = _gaussian(_variables(case.inputs), h, train=True)
  logvar = logvar + 2 * np.log(float(case.hp["scale"]))
  each = objectives.kl_losses(mean, logvar)
  return {
    "z": first(fusion.draw_gaussian(mean, logvar, noise)),
    "mu": first(mean),
    "std": first(jnp.exp(logvar / 2)),
    "kl_per_pixel_mean": each.mean(),
    "kl_per_sample_mean": each.reshape(each.shape[0], -1).sum(-1).mean(),
  }


def kl(case: Case) -> dict:
  """Of sigma, not of its logarithm."""
  value = lambda mean, std: objectives.kl_losses(mean, 2 * jnp.log(std)).mean()
  found, grads = jax.value_and_grad(value, (0, 1))(case.inputs["mu"], case.inputs["std"])
  return {"kl": found, "grad_mu": grads[0], "grad_std": grads[1]}


def hard(case: Case) -> dict:
  """`hard_combo` or `hard_combos`: rows of 0 and 1."""
  listed = np.atleast_2d(case.hp.get("hard_combos", case.hp.get("hard_combo")))
  mask = _mask(case.inputs["mask"])
  wanted = [[m for m, bit in zip(mask, row) if bit] for row in listed]
  rows = _combinations.among(
    jnp.asarray(_combinations.chosen(wanted, tuple(mask))), _combinations.combination_index(mask)
  )
  weight = jnp.ones(rows.shape[0])
  out = {"n_hard": rows.sum()}
  for variant in ("intended", "released"):
    loss = lambda z, v=variant: _combinations.hard_loss(
      objectives.row_losses(z, case.inputs["label"]), rows, weight, v
    )
    out[variant], out[f"{variant}_grad"] = jax.value_and_grad(loss)(case.inputs["logits"])
  return out


def variance(case: Case) -> dict:
  """Of all combinations, or of the two modalities alone; NaN where the batch has none."""
  mask = _mask(case.inputs["mask"])
  values, index = jnp.square(case.inputs["std"]).mean(-1), _combinations.combination_index(mask)
  found = _dmrnet_mining.batch_means(index, values, 2 ** len(mask) - 1)
  return {"per_combo": found, "audio_only": found[0], "visual_only": found[1]}


def weak(case: Case) -> dict:
  given = case.inputs
  return {
    "weak_is_audio": _dmrnet_mining.first_is_weak(
      given["var_audio_per_epoch"], given["var_visual_per_epoch"]
    )
  }


def segmentation(case: Case) -> dict:
  """Logits [B, C, H, W] of several scales; truth counts from 1 where 0 is void."""
  void = int(case.hp["void_label"])
  scales = [k.removeprefix("logits_") for k in case.inputs if k.startswith("logits_")]
  logits = [jnp.moveaxis(case.inputs[f"logits_{s}"], 1, -1) for s in scales]
  labels = [case.inputs[f"label_{s}"] - int(void == 0) for s in scales]
  mask = case.inputs["mask"] > 0
  loss = lambda rows: objectives.multi_scale_loss(
    logits,
    labels,
    rows.astype(jnp.float32),
    class_weights=case.inputs["class_weight"],
    void=void - int(void == 0),
  )
  whole, lost = loss(jnp.ones(mask.shape[0])), loss(~mask.all(1))
  return {
    "seg_loss": whole,
    "weak_incomplete": lost,
    "weak_depth_only": loss(~mask[:, 0] & mask[:, 1]),
    "total": whole + float(case.hp["auxi_scale"]) * lost,
  }
