"""A second network from features to logits, beside a model's own, which only training runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.traverse_util as flat

from mmfuse import tree
from mmfuse.core import Unavailable
from mmfuse.fusion._late import named_key

BRANCH = "branch"  # subtree of its parameters and statistics; `Outputs.aux` of its logits [B, C]


@dataclasses.dataclass(frozen=True)
class Branched:
  """A `core.Model` whose training outputs hold aux["branch"] [B, C]: logits of a second network.

  It has everything of `model` that is of no modality (the fused head, a trunk), begun anew, and reads
  the same features, so that its gradient reaches the encoders. Prediction is that of `model`. Raises
  Unavailable for a modality that is called "branch".
  """

  model: Any

  def __post_init__(self):
    if BRANCH in self.modalities:
      raise Unavailable(f"a modality is called {BRANCH!r}, which is where a second network is kept")

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return tuple(sorted(self.model.modalities))

  def restrict(self, modalities) -> "Branched":
    """The same on fewer modalities."""
    return Branched(self.model.restrict(modalities))

  def init(self, key, inputs, mask) -> dict[str, Any]:
    """The model's variables, those that it has without a branch, and the branch's."""
    own, other = (self.model.init(k, inputs, mask) for k in (key, named_key(key, BRANCH)))
    names = self.modalities
    of_none = lambda part: _of_no_modality(other.get(part, {}), names)
    return {
      "params": {**own["params"], BRANCH: of_none("params")},
      "batch_stats": {**own.get("batch_stats", {}), BRANCH: of_none("batch_stats")},
    }

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """The model's features."""
    features, stats = self.model.encode(_own(variables), inputs, mask, train=train, rngs=rngs)
    return features, {**stats, BRANCH: variables["batch_stats"][BRANCH]}

  def heads(self, variables, features, mask, *, train, rngs=None):
    """The model's heads; in training the branch's logits beside them."""
    outputs, stats = self.model.heads(_own(variables), features, mask, train=train, rngs=rngs)
    moved = variables["batch_stats"][BRANCH]
    if train:
      second, after = self.model.heads(
        _with_branch(variables), features, mask, train=train, rngs=rngs
      )
      outputs = outputs._replace(aux={**outputs.aux, BRANCH: second.logits})
      moved = _of_no_modality(after, self.modalities)
    return outputs, {**stats, BRANCH: moved}


def own_part(part: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters or statistics without those of the branch."""
  return {k: v for k, v in part.items() if k != BRANCH}


def _own(variables: Mapping[str, Any]) -> dict[str, Any]:
  return {k: own_part(part) for k, part in variables.items()}


def _with_branch(variables: Mapping[str, Any]) -> dict[str, Any]:
  """The model's variables, those of the branch in the place of what is of no modality."""
  return {k: _put(own_part(part), part[BRANCH]) for k, part in variables.items()}


def _of_no_modality(part: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
  """The leaves that `tree.owners_of` gives to no modality, in their places."""
  owners = flat.flatten_dict(tree.owners_of(part, names))
  leaves = flat.flatten_dict(part)
  return flat.unflatten_dict({k: x for k, x in leaves.items() if owners[k].modality is None})


def _put(part: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
  own, other = (flat.flatten_dict(x, keep_empty_nodes=True) for x in (part, leaves))
  return flat.unflatten_dict({**own, **other})
