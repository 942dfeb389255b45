"""Two encoders of one modality, the second in the place of a modality that is absent, and their translation.

Wei, Luo and Luo, One-stage Modality Distillation for Incomplete Multimodal Learning, arXiv 2309.08204,
2023: the network of `_modality_distillation.py` that predicts. The block of cross translation is that of
the authors' code.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Outputs, Unavailable
from mmfuse.fusion._late import named_key, named_rngs

OWN, RESTORED, TRANSLATION = "own", "restored", "translation"  # parameters of the modality
NETWORK, RESIZE = "network", "resize"  # those of the restored branch


def init_translation(key: jax.Array, width: int) -> dict[str, Any]:
  """Weights of `cross_translation` for C = width: Dense layers C -> C / 2 twice, and C -> C."""
  sizes = {"first": width - width // 2, "second": width // 2, "join": width}
  empty = jnp.zeros((1, width))
  return {
    name: nn.Dense(size).init(named_key(key, name), empty)["params"] for name, size in sizes.items()
  }


def cross_translation(
  weights: Mapping[str, Any], a: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(fused, joint_a, joint_g), each [B, ..., C]: what two branches say in the words of both.

  joint_x = [T_1 x; T_2 x], fused = ReLU(W (joint_a + joint_g) / 2 + b), T_k x = ReLU(W_k x + b_k) shared by
  the branches. Swapping them swaps the joints and leaves `fused` as it is. On maps W are 1 x 1 convolutions.

  Args:
    weights: {"first": T_1, "second": T_2, "join": W}, each {"kernel", "bias"}.
    a, g: [B, ..., C].
  """

  def layer(name: str, x: jax.Array) -> jax.Array:
    dense: Any = nn.Dense(weights[name]["bias"].shape[0])
    return nn.relu(dense.apply({"params": weights[name]}, x))

  joint_a, joint_g = (
    jnp.concatenate([layer("first", x), layer("second", x)], axis=-1) for x in (a, g)
  )
  return layer("join", (joint_a + joint_g) / 2), joint_a, joint_g


class Restoration(NamedTuple):
  """What the branch says that stands for the absent modality."""

  features: jax.Array  # g [B, ..., C]
  rows: jax.Array  # [B, D] of the width of the teacher's features, flattened
  logits: jax.Array  # r [B, K]


class Translated(NamedTuple):
  """What both branches say together."""

  own: jax.Array  # a [B, ..., C]
  fused: jax.Array  # [B, ..., C], 0 where the modality is absent
  joint_own: jax.Array
  joint_restored: jax.Array
  logits: jax.Array  # o [B, K]


@dataclasses.dataclass(frozen=True)
class Branches:
  """a = A(x), g = G(x), fused = `cross_translation`(a, g), o = head_A(fused), r = head_G(g).

  A and G are copies of `available`, each with its own uni-modal head. G is compared with features of
  `privileged`; where these are of another width, a linear layer takes g there.
  All parameters and statistics stand under the modality, so that a batch without it moves none.

  Args:
    available: a `core.Model` of the one modality that is there.
    privileged: a `core.Model` of the one that is not.
  """

  available: Any
  privileged: Any

  @property
  def name(self) -> str:
    """The available modality."""
    (name,) = self.available.modalities
    return name

  def init(self, key: jax.Array, inputs: Mapping, mask: Mapping) -> dict[str, Any]:
    """Variables from one example batch, which has both modalities.

    Raises Unavailable for features that are not one array of two units or more.
    """
    m = self.name
    a, t = (
      jax.eval_shape(functools.partial(_features, model), key, inputs, mask)
      for model in (self.available, self.privileged)
    )
    if any(not hasattr(h, "ndim") or h.shape[-1] < 2 for h in (a, t)):
      raise Unavailable("modality_distillation translates features: one array of two units or more")
    own, other = (
      self.available.init(k, {m: inputs[m]}, {m: mask[m]}) for k in (key, named_key(key, RESTORED))
    )
    restored = {NETWORK: other["params"]}
    width, wanted = (math.prod(h.shape[1:]) for h in (a, t))
    if width != wanted:
      layer: Any = nn.Dense(wanted)
      restored[RESIZE] = layer.init(named_key(key, RESIZE), jnp.zeros((1, width)))["params"]
    translation = init_translation(named_key(key, TRANSLATION), a.shape[-1])
    params = {OWN: own["params"], RESTORED: restored, TRANSLATION: translation}
    stats = {OWN: own.get("batch_stats", {}), RESTORED: other.get("batch_stats", {})}
    return {"params": {m: params}, "batch_stats": {m: stats}}

  def restore(self, variables, inputs, mask, *, train: bool, rngs=None) -> tuple[Restoration, Any]:
    """(what stands for the absent modality, statistics)."""
    params = variables["params"][self.name][RESTORED]
    g, stats = self._encoded(RESTORED, params[NETWORK], variables, inputs, mask, train, rngs)
    logits, stats = self._headed(RESTORED, params[NETWORK], stats, g, mask, train, rngs)
    rows = g.reshape(g.shape[0], -1)
    if RESIZE in params:
      layer: Any = nn.Dense(params[RESIZE]["bias"].shape[0])
      rows = layer.apply({"params": params[RESIZE]}, rows)
    return Restoration(g, rows, logits), self._kept(variables, RESTORED, stats)

  def translate(
    self, variables, g: jax.Array, inputs, mask, *, train: bool, rngs=None
  ) -> tuple[Translated, Any]:
    """(what both branches say, statistics); g are the features of `restore`."""
    m, params = self.name, variables["params"][self.name]
    a, stats = self._encoded(OWN, params[OWN], variables, inputs, mask, train, rngs)
    fused, joint_own, joint_restored = cross_translation(params[TRANSLATION], a, g)
    fused = masks.fill({m: fused}, {m: mask[m]})[m]  # its biases are no features of what is absent
    logits, stats = self._headed(OWN, params[OWN], stats, fused, mask, train, rngs)
    said = Translated(a, fused, joint_own, joint_restored, logits)
    return said, self._kept(variables, OWN, stats)

  def _encoded(self, branch: str, params, variables, inputs, mask, train: bool, rngs):
    m = self.name
    variables = {"params": params, "batch_stats": variables["batch_stats"][m][branch]}
    features, stats = self.available.encode(
      variables, {m: inputs[m]}, {m: mask[m]}, train=train, rngs=named_rngs(rngs, branch)
    )
    return features[m], stats

  def _headed(self, branch: str, params, stats, h: jax.Array, mask, train: bool, rngs):
    m = self.name
    variables = {"params": params, "batch_stats": stats}
    outputs, stats = self.available.heads(
      variables, {m: h}, {m: mask[m]}, train=train, rngs=named_rngs(rngs, branch)
    )
    return own_logits(outputs, m), stats

  def _kept(self, variables, branch: str, stats) -> dict[str, Any]:
    """The statistics, those of one branch replaced."""
    m = self.name
    return {m: {**variables["batch_stats"][m], branch: stats}}


def own_logits(outputs: Outputs, modality: str) -> jax.Array:
  """Those of the modality's own head. Raises Unavailable for a model that has none."""
  if modality not in outputs.unimodal_logits:
    raise Unavailable("modality_distillation needs a model with a head for each modality")
  return outputs.unimodal_logits[modality]


def _features(model: Any, key: jax.Array, inputs: Mapping, mask: Mapping) -> Any:
  """What the encoder of a model of one modality returns."""
  (m,) = model.modalities
  inputs, mask = {m: inputs[m]}, {m: mask[m]}
  variables = {"batch_stats": {}, **model.init(key, inputs, mask)}
  return model.encode(variables, inputs, mask, train=False, rngs=None)[0][m]
