"""contrastive: towers whose embeddings of one row are to be nearer than those of two rows.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021 (CLIP),
of any number of towers; the loss is InfoNCE of van den Oord, Li, Vinyals, 2018, both ways.
"""

import dataclasses
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import LAST, Batch, Method, Outputs
from mmfuse.fusion._attention import check_counts
from mmfuse.fusion._cosine import unit
from mmfuse.methods.representation._towers import Towers, both, check_pairs, masked, side_by_side
from mmfuse.names import CLASSIFICATION, RETRIEVAL

_NOTHING = -1e30  # the logit of a row that does not count: finite, so that gradients are


def symmetric_loss(
  embeddings: Mapping[str, jax.Array],
  mask: Mapping[str, jax.Array],
  weight: jax.Array,
  temperature: float,
) -> jax.Array:
  r"""The mean over pairs of modalities of (CE(S, i) + CE(S^T, i)) / 2, S = e_m e_n^T / temperature.

  Row i is told from the rows of the batch that have both modalities; a pair that no row has is 0.

  Args:
    embeddings: {m: e_m [B, D]} of unit length.
    mask: {m: bool [B]}.
    weight: [B], of the rows.
    temperature: above 0.
  """
  found = []
  for m, n in combinations(sorted(embeddings), 2):
    rows = both(mask, weight, m, n)
    product = jnp.matmul(embeddings[m], embeddings[n].T, precision=jax.lax.Precision.HIGHEST)
    scores = product / temperature
    for s in (scores, scores.T):
      log_p = jnp.diagonal(s) - jax.nn.logsumexp(jnp.where(rows[None] > 0, s, _NOTHING), axis=1)
      found.append(objectives.weighted_mean(-log_p, rows))
  return jnp.stack(found).mean()


@dataclasses.dataclass(frozen=True)
class _Loss:
  towers: Towers
  temperature: float

  def __call__(self, variables, batch: Batch, key, clock, memory):
    del clock, memory
    z, stats = self.towers.project(
      variables, batch.inputs, batch.mask, train=True, rngs={"dropout": key}
    )
    embeddings = {m: unit(x, -1) for m, x in z.items()}
    return symmetric_loss(embeddings, batch.mask, batch.weight, self.temperature), train.Aux(stats)


@dataclasses.dataclass(frozen=True)
class _Predict:
  """features {m: e_m}, 0 where absent."""

  towers: Towers

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    z, _ = self.towers.project(variables, inputs, mask, train=False)
    return Outputs(None, features=masked({m: unit(x, -1) for m, x in z.items()}, mask))


def contrastive_towers(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  width: int = 64,
  temperature: float = 0.07,
  share: float = 0.5,
) -> Method:
  r"""Symmetric InfoNCE between unit embeddings e_m of a linear map of each encoder, without labels.

  L = mean over pairs m < n of (CE(e_m e_n^T / t) + CE(e_n e_m^T / t)) / 2, the right answer on the
  diagonal. Of a retrieval that is all; of other tasks a phase "head" follows, a linear head on the
  embeddings of all modalities side by side. The temperature is fixed where CLIP learns it from .07 on.

  Args:
    model: whose encoders are used, its heads and fusion are not.
    tx: the optimiser of both phases.
    task: of the data, default "classification".
    width: of the embeddings, default 64 (ours).
    temperature: t, default .07 (CLIP's first).
    share: of the epochs before the head, default .5; of a retrieval all are.

  Raises:
    ValueError: a width below 1, a temperature that is not positive, a share outside (0, 1).
    Unavailable: one modality.

  Reference: Radford et al., ICML 2021.
  """
  check_counts(width=width)
  if not temperature > 0:
    raise ValueError(f"temperature must be positive, got {temperature}")
  check_pairs(model.modalities)
  towers = Towers(model, width)
  loss = _Loss(towers, temperature)
  aligned = train.minimise(towers.begin, loss, tx, predict=_Predict(towers), select=LAST)
  if task == RETRIEVAL:
    return aligned
  return train.with_head(aligned, side_by_side, train.Width(model), tx, share)
