"""Complete networks side by side that share nothing, as one model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse.core import Outputs, Unavailable
from mmfuse.fusion._late import named_rngs
from mmfuse.methods.ensembles._members import MEMBERS, pool
from mmfuse.tree import DECODERS, HEADS


def _name(number: int) -> str:
  return f"member{number}"


def _join(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """{m: {member: encoder}, "heads": {m or "fused": {member: head}}}: each leaf under its modality."""
  named = [(_name(k), tree) for k, tree in enumerate(trees)]
  joined: dict[str, Any] = {}
  for top, below in trees[0].items():
    if top in (HEADS, DECODERS):
      joined[top] = {name: {k: tree[top][name] for k, tree in named} for name in below}
    else:
      joined[top] = {k: tree[top] for k, tree in named}
  return joined


def _taken(tree: Mapping[str, Any], number: int) -> dict[str, Any]:
  """The parameters of a member as its model has them; what is no member's (a critic) is left out."""
  k, taken = _name(number), {}
  for top, below in tree.items():
    if top in (HEADS, DECODERS):
      taken[top] = {name: v[k] for name, v in below.items()}
    elif k in below:
      taken[top] = below[k]
  return taken


@dataclasses.dataclass(frozen=True)
class Copies:
  """`number` copies of `model` from different initialisations: a `core.Model`.

  The first starts as the model itself would. Outputs: what they say together (`pool`) as logits [B, C]
  and as each modality's, aux["members"] [B, K, C] the fused logits of each, aux["latent"] their latents
  side by side, where they have some; features {m: {member: ...}}. params: {m: {member: ...}, "heads":
  {m or "fused": {member: ...}}}, batch_stats {member: ...}.
  """

  model: Any
  number: int
  task: str

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return tuple(self.model.modalities)

  def restrict(self, modalities) -> "Copies":
    """Copies of the model restricted. Raises Unavailable where it cannot be."""
    if self.model.restrict is None:
      raise Unavailable("the model cannot be restricted to some of its modalities")
    return dataclasses.replace(self, model=self.model.restrict(modalities))

  def init(self, key, inputs, mask) -> dict[str, Any]:
    """Variables from one example batch."""
    keys = [key, *(jax.random.fold_in(key, k) for k in range(1, self.number))]
    each = [self.model.init(k, inputs, mask) for k in keys]
    stats = {_name(k): v.get("batch_stats", {}) for k, v in enumerate(each)}
    return {"params": _join([v["params"] for v in each]), "batch_stats": stats}

  def _variables(self, variables, k: int) -> dict[str, Any]:
    return {
      "params": _taken(variables["params"], k),
      "batch_stats": variables["batch_stats"][_name(k)],
    }

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """({m: {member: features}}, statistics)."""
    features: dict[str, dict[str, Any]] = {m: {} for m in self.modalities}
    stats = {}
    for k in range(self.number):
      own = named_rngs(rngs, _name(k))
      found, stats[_name(k)] = self.model.encode(
        self._variables(variables, k), inputs, mask, train=train, rngs=own
      )
      for m in features:
        features[m][_name(k)] = found[m]
    return features, stats

  def heads(self, variables, features, mask, *, train, rngs=None):
    """(Outputs, statistics). Raises Unavailable for a model without a fused head."""
    said: list[Outputs] = []
    stats = {}
    for k in range(self.number):
      outputs, stats[_name(k)] = self.model.heads(
        self._variables(variables, k),
        {m: h[_name(k)] for m, h in features.items()},
        mask,
        train=train,
        rngs=named_rngs(rngs, _name(k)),
      )
      said.append(outputs)
    if said[0].logits is None:
      raise Unavailable("members of an ensemble need a fused head, and the model has none")
    members = jnp.stack([o.logits for o in said], 1)
    unimodal = {
      m: pool(jnp.stack([o.unimodal_logits[m] for o in said], 1), self.task)
      for m in said[0].unimodal_logits
    }
    aux: dict[str, Any] = {MEMBERS: members}
    if hasattr(said[0].aux.get("latent"), "ndim"):
      flat = [o.aux["latent"].reshape(members.shape[0], -1) for o in said]
      aux["latent"] = jnp.concatenate(flat, -1)
    return Outputs(pool(members, self.task), unimodal, dict(features), aux), stats
