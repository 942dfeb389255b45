"""Fusion heads on parity cases: each function maps a case to {output name: value}.

Weights are inputs `w.<name>` in the layout [out, in]; modules get them transposed, as parameters.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import fusion
from mmfuse.core import Sequence
from mmfuse.fusion._attend_sum import weighted_sum
from mmfuse.fusion._deep_set import normalized, pool_present, set_weights
from mmfuse.fusion._early import concat_vectors
from mmfuse.fusion._gaussian import gaussian_product
from mmfuse.fusion._low_rank import low_rank_product
from mmfuse.fusion._mult import CrossEncoder, sinusoids
from mmfuse.fusion._multiplicative import interact
from mmfuse.fusion._nl_gate import nl_gate
from mmfuse.fusion._stack import stack_vectors
from mmfuse.fusion._tensor import tensor_product
from mmfuse.methods.balancing._gblending_weights import gblending_weights
from mmfuse.objectives._cca import cca_loss

from ._cases import Case


def _float(x):
  return jnp.asarray(x, jnp.float32)


def _numbered(case: Case, prefix: str) -> dict:
  """{"1": prefix1, "2": prefix2, ...}, numbers padded so that their order is that of the names."""
  found = {k: v for k, v in case.inputs.items() if re.fullmatch(rf"{prefix}\d+", k)}
  return {k.removeprefix(prefix).zfill(3): _float(v) for k, v in found.items()}


def _dense(case: Case, name: str) -> dict:
  return {
    "kernel": _float(case.inputs[f"w.{name}.weight"]).T,
    "bias": _float(case.inputs[f"w.{name}.bias"]),
  }


def _apply(dense: dict, x) -> jax.Array:
  return _float(x) @ dense["kernel"] + dense["bias"][None]


def concat(case: Case) -> dict:
  return {"y": concat_vectors(_numbered(case, "x"))}


def stack(case: Case) -> dict:
  return {"y": stack_vectors(_numbered(case, "x"))}


def tensor(case: Case) -> dict:
  return {"y": tensor_product(_numbered(case, "x"))}


def low_rank(case: Case) -> dict:
  weights, bias = (_float(case.inputs[f"fusion_{k}"]) for k in ("weights", "bias"))
  y = low_rank_product(
    _numbered(case, "x"), _numbered(case, "factor"), weights.reshape(-1), bias.reshape(-1)
  )
  return {"y": y}


def multiplicative(case: Case) -> dict:
  """`mi2_<kind>...` or `mi3...`; the 3-way form has weights w.a.* and w.b.*."""
  leaf = lambda prefix: {k: _float(case.inputs[f"w.{prefix}{k}"]) for k in "WUVb"}
  x = [v for _, v in sorted(_numbered(case, "x").items())]
  weights = leaf("") if len(x) == 2 else {"slope": leaf("a."), "offset": leaf("b.")}
  kind = next((k for k in ("vector", "scalar") if k in case.name), "matrix")
  clip = (case.hp["clip_lo"], case.hp["clip_hi"]) if "clip_lo" in case.hp else None
  return {"y": interact(x, weights, kind, clip)}


def non_local_gate(case: Case) -> dict:
  x1, x2 = case.inputs["x1"], case.inputs["x2"]
  q, k, v = _float(x1), _float(x2), _float(x2)
  if "w.qli.weight" in case.inputs:
    q, k, v = (_apply(_dense(case, f"{n}li"), x) for n, x in (("q", x1), ("k", x2), ("v", x2)))
  rows, c, tf = q.shape[0], case.hp["c"], case.hp["tf"]
  y = nl_gate(
    q.reshape(rows, case.hp["thw"], c),
    k.reshape(rows, c, tf),
    v.reshape(rows, tf, c),
    jnp.ones((rows, tf), bool),
  )
  return {"y": y.reshape(rows, -1)}


def _head(case: Case, module, params: dict) -> dict:
  features = {m: _float(case.inputs[m]) for m in ("x", "y")}
  mask = {m: jnp.ones(h.shape[0], bool) for m, h in features.items()}
  classes = case.outputs["out"].shape[-1]
  out, _ = module.apply({"params": params}, features, mask, num_classes=classes, train=False)
  return {"out": out}


def sum_head(case: Case) -> dict:
  return _head(case, fusion.Sum(), {f"branch_{m}": _dense(case, f"fc_{m}") for m in "xy"})


def concat_head(case: Case) -> dict:
  return _head(case, fusion.Concat(), _dense(case, "fc_out"))


def film(case: Case) -> dict:
  by = case.name.split("_")[1]
  params = {"film": _dense(case, "fc"), "out": _dense(case, "fc_out")}
  return _head(case, fusion.FiLM(by), params)


def gated(case: Case) -> dict:
  by = case.name.split("_")[1]
  other = "y" if by == "x" else "x"
  params = {"gate": _dense(case, f"fc_{by}"), "project": _dense(case, f"fc_{other}")}
  params["out"] = _dense(case, "fc_out")
  return _head(case, fusion.Gated(by, width=params["gate"]["bias"].shape[0]), params)


def _encoder_params(case: Case) -> dict:
  """Parameters of `CrossEncoder`: the stacked [3 E, E] projection is cut in three."""
  w = {k.removeprefix("w."): _float(v) for k, v in case.inputs.items() if k.startswith("w.")}
  norm = lambda name: {"scale": w[f"{name}.weight"], "bias": w[f"{name}.bias"]}
  params = {"norm": norm("layer_norm")}
  for i in range(case.hp["layers"]):
    at = f"layers.{i}"
    kernels = jnp.split(w[f"{at}.self_attn.in_proj_weight"], 3)
    biases = jnp.split(w[f"{at}.self_attn.in_proj_bias"], 3)
    attention = {
      n: {"kernel": k.T, "bias": b} for n, k, b in zip(("query", "key", "value"), kernels, biases)
    }
    attention["out"] = _dense(case, f"{at}.self_attn.out_proj")
    params[f"attention_{i}"] = attention
    params[f"norm0_{i}"], params[f"norm1_{i}"] = (norm(f"{at}.layer_norms.{n}") for n in "01")
    params[f"up_{i}"], params[f"down_{i}"] = (_dense(case, f"{at}.fc{n}") for n in "12")
  return params


def mult_encoder(case: Case) -> dict:
  """Inputs [T, B, E]; `x_query` and `x_kv`, or `x` for self-attention."""
  swap = lambda x: jnp.swapaxes(_float(x), 0, 1)
  whole = lambda x: Sequence(x, jnp.full(x.shape[0], x.shape[1]))
  x = whole(swap(case.inputs.get("x_query", case.inputs.get("x"))))
  context = whole(swap(case.inputs["x_kv"])) if "x_kv" in case.inputs else None
  encoder = CrossEncoder(case.hp["layers"], case.hp["heads"], masked="nomask" not in case.name)
  y = encoder.apply({"params": _encoder_params(case)}, x, context, train=False)
  return {"y": swap(y)}


def mult_positions(case: Case) -> dict:
  return {k: sinusoids(*v.shape) for k, v in case.outputs.items()}


def gaussian(case: Case) -> dict:
  means, log_vars = _numbered(case, "mu"), _numbered(case, "logvar")
  mask = {m: jnp.ones(v.shape[0], bool) for m, v in means.items()}
  mean, log_var = gaussian_product(means, log_vars, mask, case.hp["eps"])
  return {"mu": mean, "logvar": log_var}


def cca(case: Case) -> dict:
  with jax.enable_x64(True):  # the case is float64
    x, y = (jnp.asarray(case.inputs[k], jnp.float64) for k in ("h1", "h2"))
    loss = cca_loss(x, y, k=case.hp["outdim"], ridge=case.hp["r"], floor=case.hp["eps"])
    return {"loss": np.asarray(loss)}


def blend_paper(case: Case) -> dict:
  with jax.enable_x64(True):  # O is a difference of differences
    losses = (case.inputs[k] for k in ("train_loss0", "valid_loss0", "train_loss1", "valid_loss1"))
    return {"weights": np.asarray(gblending_weights(*losses).weights)}


def blend_released(case: Case) -> dict:
  """One checkpoint: |G| / O^2 where the first checkpoint is 0; a gap below 0 counts as 1e-4."""
  with jax.enable_x64(True):
    train, valid = (np.asarray(case.inputs[f"{k}_loss"], np.float64) for k in ("train", "valid"))
    train = np.where(valid < train, valid - 1e-4, train)
    zero = np.zeros_like(valid)
    blend = gblending_weights(zero, zero, train, valid, variant="released")
    return {"weights": np.asarray(blend.weights)}


def _set_inputs(case: Case, projection: str) -> tuple:
  """(names, projected [B, M, D], present)."""
  names = sorted(k for k in case.inputs if not k.startswith("w."))
  y = jnp.stack([_apply(_dense(case, f"{projection}.{m}"), case.inputs[m]) for m in names], 1)
  return names, y, jnp.ones(y.shape[:2], bool)


def attention(case: Case) -> dict:
  names, y, present = _set_inputs(case, "encoding_projection")
  joined = concat_vectors({m: _float(case.inputs[m]) for m in names})
  return {"y": weighted_sum(_apply(_dense(case, "attention.0"), joined), y, present)}


def deep_set(case: Case) -> dict:
  _, y, present = _set_inputs(case, "projections")
  if "w.attention.0.weight" in case.inputs:
    hidden = jnp.tanh(_dense_rows(_dense(case, "attention.0"), y))
    scores = _dense_rows(_dense(case, "attention.2"), hidden)[..., 0]
    y = y * set_weights(scores, present)
  axis = "modality" if "modnorm" in case.name else "feature"
  pool = next(p for p in ("max", "median", "mean") if p in case.name.split("_"))
  return {"y": pool_present(normalized(y, present, axis, case.hp["norm_factor"]), present, pool)}


def _dense_rows(dense: dict, x) -> jax.Array:
  return x @ dense["kernel"] + dense["bias"][None, None]
