"""Exact quantities of a tiny MRBM, by enumeration of all states of its visible units."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.methods.generative.mrbm import _mrbm
from mmfuse.methods.generative.mrbm._mrbm import Params

MOST = 20  # visible units: 2^20 states


def states(width: int) -> np.ndarray:
  """All binary rows [2^width, width]."""
  return ((np.arange(2**width)[:, None] >> np.arange(width)[None]) & 1).astype(np.float32)


def log_joint_table(params: Params) -> tuple[jax.Array, jax.Array]:
  """(log P of every joint state [2^D_1, ..., 2^D_M], log Z), modalities sorted."""
  names = _mrbm.modalities_of(params)
  widths = [params[m]["bias"].shape[0] for m in names]
  if sum(widths) > MOST:
    raise ValueError(f"enumeration is for at most {MOST} visible units, got {sum(widths)}")
  sizes = [2**w for w in widths]
  index = np.unravel_index(np.arange(math.prod(sizes)), sizes)
  rows = {m: jnp.asarray(states(w)[i]) for m, w, i in zip(names, widths, index)}
  scores = -_mrbm.free_energy(params, rows)
  log_z = jax.nn.logsumexp(scores)
  return (scores - log_z).reshape(sizes), log_z


def log_conditional(params: Params, visible: Mapping[str, jax.Array], target: str) -> jax.Array:
  """log P(x_t | all others) [B] of binary rows: 2^D_t states each."""
  every = jnp.asarray(states(params[target]["bias"].shape[0]))

  def score(row):
    tiled = {m: jnp.broadcast_to(x[None], (every.shape[0], *x.shape)) for m, x in row.items()}
    return jax.nn.logsumexp(-_mrbm.free_energy(params, {**tiled, target: every}))

  return -_mrbm.free_energy(params, visible) - jax.vmap(score)(dict(visible))


def entropy(log_p: jax.Array) -> jax.Array:
  """-sum p log p in nats of a table of logarithms."""
  return -(jnp.exp(log_p) * log_p).sum()


def exact(params: Params, visible: Mapping[str, jax.Array]) -> dict[str, Any]:
  r"""What training is about, exactly, for binary rows {m: [B, D_m]}.

  Returns:
    neg_free_energy [B], log_z, log_joint [B], log_conditional {m: log P(x_m | others) [B]};
    vi_loss = -mean \sum_m log P(x_m | others); ml_loss = -mean log P(x); of the model itself:
    entropies {m: H(X_m)}, entropy_joint, and variation_of_information = \sum_m H(X_m | others).

  Raises ValueError above 20 visible units.
  """
  names = _mrbm.modalities_of(params)
  table, log_z = log_joint_table(params)
  scores = -_mrbm.free_energy(params, visible)
  conditional = {m: log_conditional(params, visible, m) for m in names}
  axes = range(len(names))
  joint = entropy(table)
  own = {
    m: entropy(jax.nn.logsumexp(table, axis=tuple(a for a in axes if a != i)))
    for i, m in enumerate(names)
  }
  without = [entropy(jax.nn.logsumexp(table, axis=i)) for i in axes]
  return {
    "neg_free_energy": scores,
    "log_z": log_z,
    "log_joint": scores - log_z,
    "log_conditional": conditional,
    "vi_loss": -jnp.stack([*conditional.values()]).sum(0).mean(),
    "ml_loss": -(scores - log_z).mean(),
    "entropies": own,
    "entropy_joint": joint,
    "variation_of_information": sum(joint - h for h in without),
  }
