"""What the builders of this package share: chosen rows, a model's outputs, refusals."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import encoders, masks, train
from mmfuse.core import Outputs, Unavailable
from mmfuse.fusion import LateFusion


def optimiser(tx: optax.GradientTransformation | None, learning_rate: float):
  """`tx`, or the optimiser that every row of a table shares."""
  return train.sgd(learning_rate) if tx is None else tx


def validation_of(splits: Mapping[str, Any], method: str) -> Any:
  """The validation split. Raises `Unavailable` where the data have none."""
  if splits.get("validation") is None:
    raise Unavailable(f"{method} needs a validation split, and the data have none")
  return splits["validation"]


def with_fusion(model: Any, fusion: Any, method: str) -> LateFusion:
  """`model` with another fusion; its encoders keep their steps for one that attends to them.

  Raises `Unavailable` for a model that has no fusion to replace.
  """
  if not isinstance(model, LateFusion):
    raise Unavailable(
      f"{method} replaces the fusion of a LateFusion model, got a {type(model).__name__}"
    )
  if getattr(fusion, "reads_steps", False):
    steps = {m: encoders.keep_steps(e) for m, e in model.encoders.items()}
    return dataclasses.replace(model, fusion=fusion, encoders=steps)
  return dataclasses.replace(model, fusion=fusion)


def outputs_of(model: Any, kept: Mapping[str, Any], inputs: Mapping, mask: Mapping) -> Outputs:
  """What a model says in evaluation mode with weights as `weights_of` keeps them."""
  names = sorted(model.modalities)
  mask = {m: mask[m] for m in names}
  inputs = masks.fill({m: inputs[m] for m in names}, mask)
  variables = {"params": kept["params"], "batch_stats": kept["stats"]}
  features, stats = model.encode(variables, inputs, mask, train=False, rngs=None)
  return model.heads({**variables, "batch_stats": stats}, features, mask, train=False, rngs=None)[0]


@dataclasses.dataclass(frozen=True)
class Width:
  """(inputs, mask) -> the width C of a model's logits, from shapes alone, for `train.with_head`.

  Raises Unavailable for a model without heads.
  """

  model: Any

  def __call__(self, inputs: Mapping, mask: Mapping) -> int:
    def run(key):
      variables = self.model.init(key, inputs, mask)
      kept = {"params": variables["params"], "stats": variables.get("batch_stats", {})}
      return outputs_of(self.model, kept, inputs, mask)

    outputs = jax.eval_shape(run, jax.random.key(0))
    found = [z for z in (outputs.logits, *outputs.unimodal_logits.values()) if z is not None]
    if not found:
      raise Unavailable("the number of outputs is read off the model's heads, and it has none")
    width: int = found[0].shape[-1]
    return width


def judged_rows(split: Any) -> np.ndarray:
  """Places of the rows whose label counts. Raises Unavailable where there is none."""
  rows = np.flatnonzero(train.judged(split))
  if not len(rows):
    raise Unavailable("it reads labels between epochs, and no row of a part has one")
  return rows


def spread_rows(split: Any, most: int) -> np.ndarray:
  """Up to `most` of the `judged_rows`, evenly spaced: files are often sorted by class."""
  rows = judged_rows(split)
  return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]


def mean_logits(outputs: Outputs, mask: Mapping[str, jax.Array]) -> Outputs:
  """logits = the mean of z_m [B, C] over the present modalities; 0 where none is present."""
  names = sorted(outputs.unimodal_logits)
  present = jnp.stack([mask[m] for m in names])[..., None]
  stacked = jnp.stack([outputs.unimodal_logits[m] for m in names])
  total = jnp.where(present, stacked, 0.0).sum(0)
  return outputs._replace(logits=total / jnp.maximum(present.sum(0), 1))


def generator(key: jax.Array) -> np.random.Generator:
  """A host generator that depends on `key` alone."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
