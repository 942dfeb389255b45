"""unseen_interaction where rows are to be found, not labelled: one embedding of whatever a row has.

Zhang, Doughty and Snoek, Learning Unseen Modality Interaction, NeurIPS 2023; the margin is that of a public
reproduction on MSR-VTT. Their predictor of a text's embedding from video modalities is here one for all:
each modality alone, through slots and branches, gives an embedding, and those of one row are to be nearer.
"""

import dataclasses
from collections.abc import Callable
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import masks, objectives, train
from mmfuse.core import LAST, Batch, Method, Outputs
from mmfuse.fusion._cosine import unit
from mmfuse.methods.missing import _unseen_losses as losses
from mmfuse.methods.missing._slots import TOKENS
from mmfuse.names import RETRIEVAL
from mmfuse.tree import FUSED, HEADS

MARGIN = 0.094


def max_margin(scores: jax.Array, weight: jax.Array, margin: float = MARGIN) -> jax.Array:
  r"""mean_i mean_{j != i} max(0, margin + S_ij - S_ii) + max(0, margin + S_ji - S_ii), a scalar.

  Args:
    scores: S [B, B], of row i's one embedding with row j's other one.
    weight: [B]; rows of weight 0 are in no mean.
    margin: default .094 (reproduction).
  """
  counts = weight > 0
  others = counts[None] & ~jnp.eye(len(weight), dtype=bool)
  own = jnp.diagonal(scores)
  apart = jnp.zeros_like(own)
  for s in (scores, scores.T):
    hinge = jnp.where(others, jnp.maximum(0.0, margin + s - own[:, None]), 0.0)
    apart += hinge.sum(1)
  return objectives.weighted_mean(apart / jnp.maximum(others.sum(1), 1), weight)


@dataclasses.dataclass(frozen=True)
class _Embed:
  """({m: unit embedding [B, D] of m alone, 0 where absent}, {m: mean over slots}, statistics)."""

  model: Any

  def __call__(self, variables, inputs, mask, key=None):
    names, training = self.model.modalities, key is not None
    mask = {m: mask[m] for m in names}
    rngs = {"dropout": key} if training else None
    features, stats = self.model.encode(variables, inputs, mask, train=training, rngs=rngs)
    variables = {**variables, "batch_stats": stats}
    found, latent = {}, {}
    for m in names:
      alone = {n: v if n == m else jnp.zeros_like(v) for n, v in mask.items()}
      outputs, _ = self.model.heads(variables, features, alone, train=training, rngs=rngs)
      found[m], latent[m] = unit(outputs.logits, -1), outputs.aux["latent"][m]
    return masks.fill(found, mask), latent, stats


@dataclasses.dataclass(frozen=True)
class _Loss:
  """The mean max-margin over pairs of modalities, and the alignment to the nearest token."""

  embed: _Embed
  lam: float

  def __call__(self, variables, batch: Batch, key, clock, memory):
    del clock, memory
    found, latent, stats = self.embed(variables, batch.inputs, batch.mask, key)
    pairs = []
    for m, n in combinations(sorted(found), 2):
      rows = jnp.where(batch.mask[m] & batch.mask[n], batch.weight, 0.0)
      pairs.append(max_margin(found[m] @ found[n].T, rows))
    tokens = variables["params"][HEADS][FUSED][TOKENS]
    mask = {m: batch.mask[m] for m in found}
    # of this task the nearest token is meant, and the label is not read
    near = losses.alignment_loss(latent, tokens, batch.index, mask, batch.weight, RETRIEVAL)
    parts = {"margin": jnp.stack(pairs).mean(), "alignment": self.lam * near}
    return sum(parts.values()), train.Aux(stats, log={f"part/{k}": v for k, v in parts.items()})


@dataclasses.dataclass(frozen=True)
class _Predict:
  embed: _Embed

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    return Outputs(None, features=self.embed(variables, inputs, mask)[0])


@dataclasses.dataclass(frozen=True)
class _Begin:
  """The variables of the model; no memory."""

  model: Any

  def __call__(self, key, batch: Batch, num_rows: int):
    del num_rows
    return self.model.init(key, batch.inputs, batch.mask), {}


def of_retrieval(
  model: Any,
  tx: optax.GradientTransformation,
  lam: float,
  width: int,
  checked: Callable[..., Any],
) -> Method:
  """Phase "train", without labels: max-margin between the embeddings of a row, and lam L_align.

  There is no label that one modality alone could predict, and so no pseudo-label; encoders are trained
  along, the embedding of both branches is their mean.

  Args:
    model: whose fusion is a `SlotFusion`.
    tx: the optimiser.
    lam: weight of the alignment.
    width: of the embedding.
    checked: (init, key, batch, num_rows) -> init's, where the encoders can read the batch.
  """
  model = dataclasses.replace(model, num_classes=width)
  embed = _Embed(model)

  def begin(key, batch: Batch, num_rows: int):
    return checked(_Begin(model), key, batch, num_rows)

  loss = _Loss(embed, lam)
  return train.minimise(begin, loss, tx, predict=_Predict(embed), select=LAST)
