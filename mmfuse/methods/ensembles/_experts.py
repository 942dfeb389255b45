"""The experts of I2M2 as one model: a complete network per modality and a joint one.

Madaan, Makino, Chopra and Cho, Jointly Modeling Inter- & Intra-Modality Dependencies for
Multi-modal Learning, NeurIPS 2024. The product is in `fusion/_experts.py`, the training in `_i2m2.py`.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.core import Outputs, Unavailable
from mmfuse.fusion import LateFusion, combine_experts

ALONE, JOINT = "alone", "joint"


class _NoFusion(nn.Module):
  """The fused head of an expert that has one modality and a head for it: none."""

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del mask, train
    rows = next(iter(features.values())).shape[0]
    return jnp.zeros((rows, num_classes)), None


def _alone(model: Any, modality: str) -> Any:
  """The model on one modality, of which the uni-modal logits are used."""
  if isinstance(model, LateFusion):  # whose fused head need not exist on one modality
    encoders = {modality: model.encoders[modality]}
    return dataclasses.replace(model, encoders=encoders, fusion=_NoFusion())
  if model.restrict is None:
    raise Unavailable("its uni-modal experts need a model that can be restricted to one modality")
  return model.restrict((modality,))


def complete(mask) -> jax.Array:
  """bool [B]: the rows that have all modalities, hence the joint expert."""
  return functools.reduce(jnp.logical_and, mask.values())


@dataclasses.dataclass(frozen=True)
class Experts:
  r"""log p(c | x) = log softmax(\sum_m log softmax(z_m) + log softmax(g)): a `core.Model`.

  Complete networks that share nothing: `alone` ((m, model of that modality), ...), whose head gives
  z_m [B, C], and `joint`, a model of all modalities whose fused head gives g [B, C], or None. A row
  without modality m lacks expert m and the joint one, which needs all of them.

  params: {m: {"alone": all of expert m, "joint": encoder m of the joint expert}, ...} and the rest
  of the joint expert (its "heads") as it is, so that every leaf of one modality is under its name;
  batch_stats: {"alone": {m: ...}, "joint": ...}. Outputs: the product as logits [B, C], z_m as
  uni-modal logits, g as aux["joint"] [B, C], features {m: {"alone": ..., "joint": ...}}.
  The uni-modal heads that the joint model also has are in no expert.
  """

  alone: tuple[tuple[str, Any], ...]
  joint: Any | None

  @property
  def modalities(self) -> tuple[str, ...]:
    """The names, sorted."""
    return tuple(m for m, _ in self.alone)

  def restrict(self, modalities) -> "Experts":
    """The experts of fewer modalities, and the joint model restricted to them."""
    joint = None if self.joint is None else self.joint.restrict(modalities)
    return Experts(tuple((m, e) for m, e in self.alone if m in modalities), joint)

  def take(self, tree, name: str, *, stats: bool = False):
    """The parameters (or statistics) of an expert, a modality or "joint", as its model has them."""
    if stats:
      return tree[JOINT] if name == JOINT else tree[ALONE][name]
    if name != JOINT:
      return tree[name][ALONE]
    names = self.modalities
    return {k: v[JOINT] if k in names else v for k, v in tree.items()}

  def put(self, tree, name: str, own, *, stats: bool = False):
    """`tree` with what `take` took replaced by `own`."""
    if stats:
      return {**tree, JOINT: own} if name == JOINT else {**tree, ALONE: {**tree[ALONE], name: own}}
    if name != JOINT:
      return {**tree, name: {**tree[name], ALONE: own}}
    names = self.modalities
    return {**tree, **{k: {**tree[k], JOINT: v} if k in names else v for k, v in own.items()}}

  def init(self, key, inputs, mask):
    """The joint expert starts as that model would from `key`, the others apart from it."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {ALONE: {}}
    if self.joint is not None:
      variables = self.joint.init(key, inputs, mask)
      stats[JOINT] = variables.get("batch_stats", {})
      names = self.modalities
      params = {k: {JOINT: v} if k in names else v for k, v in variables["params"].items()}
    apart = jax.random.fold_in(key, 1)
    for m, expert in self.alone:
      variables = expert.init(apart, {m: inputs[m]}, {m: mask[m]})
      params[m] = {**params.get(m, {}), ALONE: variables["params"]}
      stats[ALONE][m] = variables.get("batch_stats", {})
    return {"params": params, "batch_stats": stats}

  def each(self) -> tuple:
    """((name, model), ...), the joint one last."""
    joint = () if self.joint is None else ((JOINT, self.joint),)
    return (*self.alone, *joint)

  def _variables(self, variables, name):
    return {
      "params": self.take(variables["params"], name),
      "batch_stats": self.take(variables["batch_stats"], name, stats=True),
    }

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """({m: {"alone": features, "joint": features}}, batch_stats)."""
    stats = variables["batch_stats"]
    features: dict[str, Any] = {m: {} for m in self.modalities}
    for name, expert in self.each():
      seen = expert.modalities
      found, new = expert.encode(
        self._variables(variables, name),
        {m: inputs[m] for m in seen},
        {m: mask[m] for m in seen},
        train=train,
        rngs=rngs,
      )
      stats = self.put(stats, name, new, stats=True)
      for m in seen:
        features[m][JOINT if name == JOINT else ALONE] = found[m]
    return features, stats

  def heads(self, variables, features, mask, *, train, rngs=None):
    """(Outputs, batch_stats)."""
    stats = variables["batch_stats"]
    logits, present = {}, {m: mask[m] for m in self.modalities}
    for name, expert in self.each():
      seen = expert.modalities
      part = JOINT if name == JOINT else ALONE
      outputs, new = expert.heads(
        self._variables(variables, name),
        {m: features[m][part] for m in seen},
        {m: mask[m] for m in seen},
        train=train,
        rngs=rngs,
      )
      stats = self.put(stats, name, new, stats=True)
      logits[name] = outputs.logits if name == JOINT else outputs.unimodal_logits[name]
    unimodal = {m: logits[m] for m in self.modalities}
    aux = {}
    if self.joint is not None:
      present[JOINT] = complete(present)
      aux[JOINT] = logits[JOINT]
    return Outputs(combine_experts(logits, present), unimodal, features, aux), stats


def experts_of(model: Any, joint: Any | None) -> Experts:
  """One expert per modality of `model` and, unless None, the joint one."""
  names = tuple(sorted(model.modalities))
  if JOINT in names:
    raise Unavailable(f"a modality named {JOINT!r} cannot be told from the joint expert; rename it")
  if joint is not None and tuple(sorted(joint.modalities)) != names:
    raise ValueError(
      f"the joint expert must have the modalities {', '.join(names)}, "
      f"got {', '.join(sorted(joint.modalities))}"
    )
  return Experts(tuple((m, _alone(model, m)) for m in names), joint)
