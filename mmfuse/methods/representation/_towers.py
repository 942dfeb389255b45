"""What the rows of this family share: an encoder per modality, and a linear map of each to one space."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Batch, Outputs, Unavailable
from mmfuse.fusion._late import named_key
from mmfuse.tree import HEADS


@dataclasses.dataclass(frozen=True)
class Towers:
  """z_m = f_m(x_m) W_m + b_m [B, width], f_m the encoders of a model; its own heads are left out.

  Args:
    model: of `core.Model`, at least two modalities.
    width: of the common space.
  """

  model: Any
  width: int

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted names."""
    return tuple(sorted(self.model.modalities))

  def init(self, key: jax.Array, inputs: Mapping, mask: Mapping) -> dict[str, Any]:
    """Variables: the encoders' own, and params["heads"][m] = {"kernel", "bias"}."""
    found = self.model.init(key, inputs, mask)
    kept = {
      kind: {k: v for k, v in found.get(kind, {}).items() if k != HEADS}
      for kind in ("params", "batch_stats")
    }
    shapes = jax.eval_shape(lambda: self._features(kept, inputs, mask, False, None)[0])
    heads = {
      m: self._dense().init(named_key(key, f"{HEADS}/{m}"), jnp.zeros((1, h.shape[-1])))["params"]
      for m, h in shapes.items()
    }
    return {**kept, "params": {**kept["params"], HEADS: heads}}

  def begin(self, key: jax.Array, batch: Batch, num_rows: int) -> tuple[dict[str, Any], dict]:
    """What `train.minimise` starts from: the variables, and no memory."""
    del num_rows
    return self.init(key, batch.inputs, batch.mask), {}

  def project(
    self, variables: Mapping, inputs: Mapping, mask: Mapping, *, train: bool, rngs: Any = None
  ) -> tuple[dict[str, jax.Array], Any]:
    """({m: z_m [B, width]}, statistics); an absent row has b_m, which nothing may read."""
    features, stats = self._features(variables, inputs, mask, train, rngs)
    heads = variables["params"][HEADS]
    return {m: self._dense().apply({"params": heads[m]}, h) for m, h in features.items()}, stats

  def _features(self, variables, inputs, mask, train, rngs):
    mask = {m: mask[m] for m in self.modalities}
    features, stats = self.model.encode(variables, inputs, mask, train=train, rngs=rngs)
    return {m: h.reshape(h.shape[0], -1) for m, h in sorted(features.items())}, stats

  def _dense(self):
    return nn.Dense(self.width)


def check_pairs(modalities: Any) -> None:
  """Raises Unavailable for a single modality: there is none to find it from."""
  if len(modalities) < 2:
    raise Unavailable("it relates each modality to the others: needs two modalities or more")


def side_by_side(outputs: Outputs) -> jax.Array:
  """h [B, M width], which a linear head reads: the features of all modalities, 0 where absent."""
  return jnp.concatenate([outputs.features[m] for m in sorted(outputs.features)], -1)


def both(mask: Mapping, weight: jax.Array, first: str, second: str) -> jax.Array:
  """The weight [B] of the rows that have two modalities, 0 of the others."""
  return jnp.where(mask[first] & mask[second], weight, 0.0)


def masked(features: Mapping, mask: Mapping) -> dict[str, jax.Array]:
  """{m: [B, D]}, 0 where absent."""
  return masks.fill(features, {m: mask[m] for m in features})
