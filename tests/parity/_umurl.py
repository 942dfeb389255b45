"""UmURL on parity cases: streams and tokens, the backbone, VC and the loss, crops, shear, corruption."""

import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.data._skeleton_graph import NTU_PARENTS
from mmfuse.encoders import Skeleton, resize_frames, skeleton_streams, skeleton_tokens
from mmfuse.methods.representation._consistency import consistency_terms
from mmfuse.methods.representation._skeleton_views import corrupted, sheared

from ._cases import Case


def _rows(x) -> jax.Array:
  """[N, C, T, V, M], or one row of it, as [B, T, P, J, C]."""
  x = jnp.asarray(x, jnp.float32)
  return jnp.transpose(x if x.ndim == 5 else x[None], (0, 2, 4, 3, 1))


def _back(x: jax.Array) -> jax.Array:
  """The only row, as [C, T, V, M]."""
  return jnp.transpose(x[0], (3, 0, 2, 1))


def streams(case: Case) -> dict:
  found = {}
  for name, x in skeleton_streams(_rows(case.inputs["x"]), NTU_PARENTS).items():
    found[f"{name}_t"], found[f"{name}_s"] = skeleton_tokens(x)
  return found


def spread(case: Case) -> dict:
  loss = lambda z: objectives.variance_covariance_loss(z, std=5.0, cov=1.0)
  value, grad = jax.value_and_grad(loss)(jnp.asarray(case.inputs["z"], jnp.float32))
  return {"loss": value, "grad": grad}


def loss(case: Case) -> dict:
  given = {k: jnp.asarray(v, jnp.float32) for k, v in case.inputs.items()}
  names = [k.removeprefix("z_u") for k in given if k.startswith("z_u")]

  def terms(z):
    apart, joined = ({k: z[f"z_{u}{k}"] for k in names} for u in ("", "u"))
    parts = consistency_terms(apart, joined)
    return 5.0 * (parts["intra"] + parts["inter"]) + parts["spread"], parts

  (value, parts), grads = jax.value_and_grad(terms, has_aux=True)(given)
  found = {"loss": value, "intra": parts["intra"], "inter": parts["inter"], "reg": parts["spread"]}
  return found | {f"g_{k}": g for k, g in grads.items()}


def backbone(case: Case) -> dict:
  """From torch's names: j, b and m are the streams, t and s the branches; weights are [out, in]."""
  weights = {k.removeprefix("p/"): jnp.asarray(v, jnp.float32) for k, v in case.inputs.items()}
  hidden, heads, layers = (int(case.hp[k]) for k in ("hidden", "heads", "layers"))

  def dense(path):
    found = {"kernel": weights[f"{path}.weight"].T}
    return found | ({"bias": weights[f"{path}.bias"]} if f"{path}.bias" in weights else {})

  norm = lambda path: {"scale": weights[f"{path}.weight"], "bias": weights[f"{path}.bias"]}
  params = {}
  for b, branch in (("t", "temporal"), ("s", "spatial")):
    for k, stream in (("j", "joint"), ("b", "bone"), ("m", "motion")):
      path = f"{k}_emb.{b}_embedding"
      params[f"embeddings_{stream}_{branch}"] = {
        "up": dense(f"{path}.0"),
        "norm": norm(f"{path}.1"),
        "out": dense(f"{path}.3"),
      }
    params[f"joined_{branch}"] = dense(f"mm_fusion.{b}_fusion.0")
    for i in range(layers):
      path = f"ma_encoder.{b}_tr.layers.{i}"
      qkv = {"kernel": weights[f"{path}.self_attn.in_proj_weight"].T}
      qkv["bias"] = weights[f"{path}.self_attn.in_proj_bias"]
      params[f"blocks_{branch}{i}"] = {
        "qkv": qkv,
        "read": dense(f"{path}.self_attn.out_proj"),
        "up": dense(f"{path}.linear1"),
        "down": dense(f"{path}.linear2"),
        "norm1": norm(f"{path}.norm1"),
        "norm2": norm(f"{path}.norm2"),
      }
  module, x = Skeleton(hidden, layers, heads), _rows(case.inputs["x"])
  names = ("joint", "bone", "motion")
  apart, _ = module.apply({"params": params}, dict.fromkeys(names, x), x, method="apart_and_joined")
  joined = module.apply({"params": params}, x, jnp.ones(len(x), bool), train=False)
  return {f"y_{k}": apart[k] for k in names} | {"y_fused": joined}


def crop(case: Case) -> dict:
  """A part of the frames; without a start, all that are valid."""
  x = jnp.moveaxis(jnp.asarray(case.inputs["x"], jnp.float32), 1, 0)[None]
  length = case.hp.get("length", case.hp["num_frames"])
  place = [jnp.asarray([int(v)]) for v in (case.hp.get("start", 0), length)]
  return {"y": jnp.moveaxis(resize_frames(x, int(case.hp["out_len"]), *place)[0], 0, 1)}


def shear(case: Case) -> dict:
  s = jnp.asarray(case.inputs["s"], jnp.float32)[None]
  return {"y": _back(sheared(_rows(case.inputs["x"]), s))}


def corrupt(case: Case) -> dict:
  x = _rows(case.inputs["x"])
  chosen = jnp.zeros((1, x.shape[3]), bool).at[0, jnp.asarray(case.inputs["joints"])].set(True)
  matrix = jnp.asarray(case.inputs["K"], jnp.float32)[None]
  turn = lambda zeroed: _back(corrupted(x, chosen, matrix, jnp.asarray([zeroed])))
  return {"y_matrix": turn(False), "y_zero": turn(True)}
