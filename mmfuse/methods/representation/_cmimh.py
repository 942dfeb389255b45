"""CMIMH: binary codes that are informative of their modality and of the others.

Hoang, Do, Nguyen, Cheung: "Multi-Modal Mutual Information Maximization: A Novel Approach for
Unsupervised Deep Cross-Modal Hashing", IEEE TNNLS 34(9), 2023.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import train
from mmfuse.core import LAST, Batch, Method, Outputs
from mmfuse.fusion._attention import check_counts
from mmfuse.methods.representation import _codes
from mmfuse.methods.representation._towers import Towers, check_pairs, masked, side_by_side
from mmfuse.names import CLASSIFICATION, RETRIEVAL


@dataclasses.dataclass(frozen=True)
class _Loss:
  """-intra I(X_m; B_m) - inter I(B_m; X_n) + gap KL."""

  towers: Towers
  intra: float
  inter: float
  gap: float

  def __call__(self, variables, batch: Batch, key, clock, memory):
    del clock, memory
    dropout, draw = jax.random.split(key)
    logits, stats = self.towers.project(
      variables, batch.inputs, batch.mask, train=True, rngs={"dropout": dropout}
    )
    parts = _codes.information_terms(logits, batch.mask, batch.weight, draw)
    loss = self.gap * parts["gap"] - self.intra * parts["intra"] - self.inter * parts["inter"]
    return loss, train.Aux(stats, log={f"part/{k}": v for k, v in parts.items()})


@dataclasses.dataclass(frozen=True)
class _Predict:
  """aux["codes"] {m: 1[a > 0]}, features {m: 2 p - 1}, which the head reads; 0 where absent."""

  towers: Towers

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    logits, _ = self.towers.project(variables, inputs, mask, train=False)
    features = masked({m: jnp.tanh(0.5 * a) for m, a in logits.items()}, mask)
    codes = masked({m: (a > 0).astype(jnp.int8) for m, a in logits.items()}, mask)
    return Outputs(None, features=features, aux={"codes": codes})


def cmimh(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  bits: int = 64,
  intra: float = 1.0,
  inter: float = 1.0,
  gap: float = 0.1,
  share: float = 0.5,
) -> Method:
  r"""Codes b_m ~ Bern(p_m), p_m = sigmoid(a_m) of a linear map of each encoder, without labels:

  L = -intra \sum_m I(X_m; B_m) - inter \sum_{m, n} I(B_m; X_n) + gap \sum_{m < n} (KL_mn + KL_nm),

  the informations by in-batch bounds with the tractable p(b | x) (`_codes.information_bound`). Drawn
  bits pass the gradient straight through to p. Of a retrieval that is all, and rows are compared by
  the bits 1[a > 0]; of other tasks a phase "head" follows, a linear head on 2 p - 1 of all modalities.

  The paper's equations were not visible to us: the loss is the project's definition of its abstract.
  Any number of modalities; a term counts the rows that have what it reads.

  Args:
    model: whose encoders are used, its heads and fusion are not.
    tx: the optimiser of both phases.
    task: of the data, default "classification".
    bits: L, default 64 (16 to 128 in this literature).
    intra: weight of what a code says of its own modality, default 1 (ours).
    inter: weight of what it says of the others, default 1 (ours).
    gap: weight of the difference between modalities, default .1 (ours): none lets codes drift apart,
      much leaves them nothing to say.
    share: of the epochs before the head, default .5; of a retrieval all are.

  Raises:
    ValueError: bits < 1, a negative weight, a share outside (0, 1).
    Unavailable: one modality.

  Reference: Hoang et al., IEEE TNNLS 2023.
  """
  check_counts(bits=bits)
  for name, value in (("intra", intra), ("inter", inter), ("gap", gap)):
    if value < 0:
      raise ValueError(f"{name} must not be negative, got {value}")
  check_pairs(model.modalities)
  towers = Towers(model, bits)
  loss = _Loss(towers, intra, inter, gap)
  coded = train.minimise(towers.begin, loss, tx, predict=_Predict(towers), select=LAST)
  if task == RETRIEVAL:
    return coded
  return train.with_head(coded, side_by_side, train.Width(model), tx, share)
