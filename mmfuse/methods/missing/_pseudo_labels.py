"""Pseudo-labels: what each modality's own model said of the training rows, late in its training.

The table stands in a method's memory and is filled by hooks of its phases.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import train
from mmfuse.core import Batch
from mmfuse.methods.missing._unseen_losses import predicted

TABLE = "pseudo"  # the memory's entry


def empty(modalities: Sequence[str], rows: int, outputs: int) -> dict[str, Any]:
  """The memory at first: {m: [rows, outputs]} and how many epochs the table is the mean of, none."""
  table = {m: jnp.zeros((rows, outputs), jnp.float32) for m in modalities}
  return {TABLE: {"of": table, "epochs": jnp.int32(0)}}


@dataclasses.dataclass(frozen=True)
class Predictions:
  """(state, batch) -> {m: what modality m alone says [B, C]}, 0 where it is absent."""

  model: Any
  task: str

  def __call__(self, state, batch: Batch):
    said = train.outputs_of(self.model, train.weights_of(state), batch.inputs, batch.mask)
    return {
      m: jnp.where(batch.mask[m][:, None], predicted(z, self.task), 0.0)
      for m, z in said.unimodal_logits.items()
    }


@dataclasses.dataclass(frozen=True)
class Collect:
  """After an epoch: the table is the mean of the predictions after the last `window` epochs."""

  predictions: Predictions
  window: int

  def __call__(self, state, splits, key, clock):
    del key
    last = min(self.window, max(1, clock.epochs // 2))
    number = clock.epoch - (clock.epochs - last)
    if number < 1:
      return state
    now = train.over_split(self.predictions, state, splits["train"])
    mean = jax.tree.map(lambda t, p: t + (p - t) / number, state.memory[TABLE]["of"], now)
    return train.remember(state, **{TABLE: {"of": mean, "epochs": jnp.int32(number)}})


@dataclasses.dataclass(frozen=True)
class Begin:
  """On entering the second phase: a table that was never begun (the first one stopped early) is filled."""

  predictions: Predictions

  def __call__(self, state, splits, key, clock):
    del key, clock
    if int(state.memory[TABLE]["epochs"]):
      return state
    now = train.over_split(self.predictions, state, splits["train"])
    return train.remember(state, **{TABLE: {"of": now, "epochs": jnp.int32(1)}})
