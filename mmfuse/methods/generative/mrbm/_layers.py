"""The layers of the deep network: each is trained as an RBM on what the layers below say of a row.

One RBM per modality and layer, by CD, or by PCD where it has chains. Sohn, Shang, Lee, NIPS 2014.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse.methods.generative.mrbm import _contrastive, _mrbm
from mmfuse.methods.generative.mrbm._directions import Direction
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN, Factors

Layer = Mapping[str, jax.Array]  # {"kernel": W [D, K], "bias": b [D], "hidden": c [K]}
Memory = Mapping[str, jax.Array]  # of one RBM: {"running": [K]}, and "chains" [C, K] of PCD


def as_rbm(modality: str, layer: Layer) -> dict[str, Any]:
  """A layer as an MRBM of one modality."""
  return {
    modality: {"kernel": layer["kernel"], "bias": layer["bias"]},
    HIDDEN: {"bias": layer["hidden"]},
  }


def as_layer(modality: str, rbm: Mapping[str, Any]) -> dict[str, jax.Array]:
  """The inverse of `as_rbm`, of parameters and of directions."""
  return {**rbm[modality], "hidden": rbm[HIDDEN]["bias"]}


def init_layer(key: jax.Array, modality: str, width: int, num_hidden: int) -> dict[str, jax.Array]:
  """W = .01 N(0, 1), b = c = 0."""
  rbm = _mrbm.init_mrbm(key, {modality: jnp.full(width, 0.5)}, num_hidden)
  return as_layer(modality, rbm)


def init_layer_memory(num_hidden: int, chains: int) -> dict[str, jax.Array]:
  """Running mean of h, and where chains > 0 their states."""
  memory = {"running": jnp.zeros(num_hidden)}
  return {**memory, "chains": jnp.zeros((chains, num_hidden))} if chains else memory


def layer_direction(
  modality: str,
  layer: Layer,
  visible: jax.Array,
  weight: jax.Array,
  memory: Memory,
  key: jax.Array,
  *,
  factors: tuple[float, float],
  sparsity_weight: float,
  sparsity_target: float,
  l2: float,
) -> Direction:
  """CD-1 of one layer on rows [B, D] in [0, 1] of weight [B], or PCD-1 where `memory` has chains.

  As in the authors' rule, momentum is on the positive part alone with PCD. Rows of weight 0 do not
  count; without any other nothing moves.
  """
  rbm, names = as_rbm(modality, layer), (modality,)
  first, second = (_contrastive.uniform_from(k, names) for k in jax.random.split(key))
  up, down = factors
  positive, negative, states = _contrastive.contrastive(
    rbm,
    {modality: visible},
    weight,
    1,
    first,
    second,
    memory.get("chains"),
    Factors({modality: up}, down),
  )
  gradient, immediate = positive, jax.tree.map(jnp.negative, negative)
  if "chains" not in memory:
    gradient = jax.tree.map(jnp.add, gradient, immediate)
    immediate = jax.tree.map(jnp.zeros_like, immediate)
  running = _contrastive.running_mean(memory["running"], positive[HIDDEN]["bias"])
  gradient = _contrastive.with_regularisers(
    gradient, rbm, running, sparsity_weight, sparsity_target, l2
  )
  new = {"running": running, **({"chains": states} if "chains" in memory else {})}
  some = weight.sum() > 0
  keep = lambda tree: jax.tree.map(lambda x: jnp.where(some, x, 0.0), tree)
  return Direction(
    as_layer(modality, keep(gradient)),
    as_layer(modality, keep(immediate)),
    jax.tree.map(lambda n, o: jnp.where(some, n, o), new, dict(memory)),
    jnp.where(some, _reconstruction(rbm, modality, visible, weight, up, down), 0.0),
  )


def _reconstruction(rbm, modality, visible, weight, up, down) -> jax.Array:
  """Mean squared error of one pass up and down: what a run is watched by."""
  factors = Factors({modality: up}, down)
  h = _mrbm.hidden_given(rbm, {modality: visible}, factors)
  error = jnp.square(visible - _mrbm.visible_given(rbm, h, modality, factors)).mean(-1)
  return (error * weight).sum() / jnp.where(weight.sum() > 0, weight.sum(), 1.0)
