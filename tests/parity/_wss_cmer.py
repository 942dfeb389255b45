"""WSS-CMER on parity cases: maps, their distances, and the objective of M networks."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.encoders import Conv
from mmfuse.methods.segmentation import _cmer_losses as losses
from mmfuse.methods.segmentation import _maps

from ._cases import Case


def _last(x) -> jax.Array:
  """[..., C, H, W] -> [..., H, W, C]."""
  return jnp.moveaxis(jnp.asarray(x, jnp.float32), -3, -1)


def _first(x) -> jax.Array:
  return jnp.moveaxis(x, -1, -3)


def max_norm(case: Case) -> dict:
  return {"y": _first(_maps.max_normalised(_last(case.inputs["p"])))}


def sample_norm(case: Case) -> dict:
  return {"y": _first(_maps.standardised(_last(case.inputs["x"])))}


def map_loss(case: Case) -> dict:
  """One channel; the mean over rows, of which those with mask 0 count as 0."""
  p, q = (jnp.asarray(case.inputs[n])[:, 0] for n in "pq")
  return {"loss": (case.inputs["mask"] * _maps.map_distances(p, q)).mean()}


def saliency(case: Case) -> dict:
  """CAM, Grad-CAM and Grad-CAM++ of one image, in float64; `exp(score)` multiplies gradients there."""
  a, g = (np.moveaxis(np.float64(case.inputs[n]), 1, -1) for n in ("act", "grad"))
  size = int(case.hp["out_h"]), int(case.hp["out_w"])
  found = {
    "cam": np.float64(case.inputs["cam"]),
    "gradcam": _maps.grad_cam(a, g),
    "gradcampp": _maps.grad_cam_pp(a, g),
  }
  return {name: _maps.shown(x, size)[:, None] for name, x in found.items()}


def head(case: Case) -> dict:
  """The 1 x 1 convolution without bias, and its mean."""
  kernel = jnp.asarray(case.inputs["W"]).T[None, None]
  conv = Conv(kernel.shape[-1], (1, 1), use_bias=False)
  maps = conv.apply({"params": {"kernel": kernel}}, _last(case.inputs["feat"]))
  return {"cam": _first(maps), "logits": _maps.pooled(maps)}


def objective(case: Case) -> dict:
  """The terms of each network, and the gradient of their sum, which is each network's own."""
  names = [f"m{i}" for i in range(len(case.inputs["pred1"]))]
  y = jnp.asarray(case.inputs["y"])
  ones = jnp.ones(len(y))
  rows = losses.Rows(y, dict.fromkeys(names, ones > 0), ones, ones)
  temperature, lmda = float(case.hp["temp"]), case.hp["lmda"]

  def each(pred1, pred2, cam1, cam2):
    by_name = lambda x: dict(zip(names, x, strict=True))
    maps = [jax.vmap(lambda c: _maps.max_normalised(_last(c)))(c) for c in (cam1, cam2)]
    first = losses.View(by_name(pred1), by_name(maps[0][..., ::-1, :]))  # along the width
    views = first, losses.View(by_name(pred2), by_name(maps[1]))
    stack = lambda term: jnp.stack([term(m) for m in names])
    found = {
      "ce": stack(lambda m: losses.cross_entropy(m, views, rows)),
      "kl": stack(lambda m: losses.mutual_learning(m, views, rows, temperature)),
      "er": stack(lambda m: losses.equivariance(m, views, rows)),
      "cmer": stack(lambda m: losses.cross_modality(m, views, rows)),
    }
    found["loss"] = found["ce"] + lmda * found["kl"] + found["er"] + found["cmer"]
    return found["loss"].sum(), found

  inputs = ("pred1", "pred2", "cam1", "cam2")
  given = [jnp.asarray(case.inputs[n]) for n in inputs]
  (_, found), gradients = jax.value_and_grad(each, (0, 1, 2, 3), has_aux=True)(*given)
  return {**found, **{f"g_{n}": g for n, g in zip(inputs, gradients)}}
