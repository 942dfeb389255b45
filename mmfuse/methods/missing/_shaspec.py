"""ShaSpec: features that modalities share stand in for what a row lacks.

Wang, Chen, Ma, Avery, Hull and Carneiro, Multi-modal Learning with Missing Modality via
Shared-Specific Feature Modelling, CVPR 2023. The network is in `_shaspec_model.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import fusion, masks, objectives, train
from mmfuse.core import Batch, Method, Outputs, Unavailable, used
from mmfuse.methods.missing._shaspec_dense import DenseSharedSpecific
from mmfuse.methods.missing._shaspec_model import OWN, SHARED, SPECIFIC, SharedSpecific
from mmfuse.tree import FUSED

OPTIONS = {
  "residual": (SHARED, SPECIFIC),
  "stand_in": ("mean", "first"),
  "alignment": ("l1", "mse"),
  "auxiliary": ("present", "kept"),
}


def ring(names) -> list[tuple[str, str]]:
  """The pairs (m, next m) around the sorted names, each once: one pair of two names, none of one."""
  names = sorted(names)
  turned = names[1:] + names[:1]
  return list(zip(names, turned))[: len(names) if len(names) > 2 else len(names) - 1]


def alignment_loss(shared, weight, kind: str = "l1") -> jax.Array:
  """L_dao: the mean over the pairs of `ring` that some row has of mean |r_i - r_j|; 0 without such a pair.

  Args:
    shared: {m: r_m [B, ..., D]}.
    weight: {m: [B]}, of the rows that have m, else 0. A pair's rows have both.
    kind: "l1" (default: the authors' code), "mse": the square instead of the absolute value.
  """
  size = jnp.abs if kind == "l1" else jnp.square
  distances, there = [jnp.zeros((), jnp.float32)], [jnp.zeros((), bool)]
  for a, b in ring(shared):
    both = jnp.where(weight[b] > 0, weight[a], 0.0)
    flat = (shared[m].astype(jnp.float32).reshape(both.shape[0], -1) for m in (a, b))
    apart = jnp.where(both[:, None] > 0, jnp.subtract(*flat), 0.0)  # what is absent has no gradient
    distances.append(objectives.weighted_mean(size(apart).mean(-1), both))
    there.append(jnp.any(both > 0))
  return jnp.stack(distances).sum() / jnp.maximum(jnp.stack(there).sum(), 1)


def domain_loss(logits, weight) -> jax.Array:
  """L_dco: the mean over the present (row, m) of CE(c(q_m), m), m by its place among the sorted names.

  Args:
    logits: {m: c(q_m) [B, M]}.
    weight: {m: [B]}, of the rows that have m, else 0.
  """
  rows = masks.fill(logits, {m: w > 0 for m, w in weight.items()})
  names = sorted(rows)
  losses = [objectives.row_losses(rows[m], jnp.full(len(rows[m]), i)) for i, m in enumerate(names)]
  every = jnp.concatenate([weight[m] for m in names])
  return objectives.weighted_mean(jnp.concatenate(losses), every)


def _present_weight(batch: Batch, names) -> dict[str, jax.Array]:
  return {m: jnp.where(batch.mask[m], batch.weight, 0.0) for m in names}


@dataclasses.dataclass(frozen=True)
class ShaSpecLoss:
  """{"fused": L_task, "alignment": alpha L_dao, "domain": beta L_dco} of a `SharedSpecific` model."""

  alpha: float
  beta: float
  alignment: str
  auxiliary: str

  def __call__(self, outputs: Outputs, batch: Batch, *, complete: Batch, **extra: Any):
    del extra
    seen = batch if self.auxiliary == "kept" else used(complete)
    weight = _present_weight(seen, outputs.features)
    shared = {m: h[SHARED] for m, h in outputs.features.items()}
    return {
      FUSED: objectives.fused(outputs, batch)[FUSED],
      "alignment": self.alpha * alignment_loss(shared, weight, self.alignment),
      "domain": self.beta * domain_loss(outputs.aux[OWN], weight),
    }


@dataclasses.dataclass(frozen=True)
class Combinations:
  """`perturb` of `train.supervised`: a complete row keeps one of the 2^M - 1 subsets, uniformly.

  Rows that lack a modality keep what they have, and so do all in the first `warmup` of the steps. The
  features stay, as the alignment reads them: heads take what is kept off the mask.
  """

  modalities: tuple[str, ...]
  warmup: float = 0.0

  def __call__(self, features, batch: Batch, key, clock):
    mask = {m: batch.mask[m] for m in self.modalities}
    done = (clock.epoch + clock.batch / jnp.maximum(clock.batches, 1)) / clock.epochs
    draws = jnp.stack(list(mask.values())).all(0) & (done >= self.warmup)
    drawn = masks.sample_subset(key, mask)
    return features, batch._replace(mask={m: jnp.where(draws, drawn[m], mask[m]) for m in mask})


def shared_std(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
  """{"shared_std": the standard deviation of r_m over its rows, meaned over units and modalities}.

  A constant minimises L_dao too: where this falls with it the shared features collapse.
  """
  weight = _present_weight(batch, outputs.features)
  stds, there = [], []
  for m, h in outputs.features.items():
    r = h[SHARED].astype(jnp.float32).reshape(h[SHARED].shape[0], -1)
    mean = objectives.mean_rows(r, weight[m])
    variance = objectives.mean_rows(jnp.square(r - mean[None]), weight[m])
    stds.append(jnp.sqrt(variance).mean())
    there.append(jnp.any(weight[m] > 0))
  return {"shared_std": jnp.stack(stds).sum() / jnp.maximum(jnp.stack(there).sum(), 1)}


def shaspec(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  alpha: float = 0.1,
  beta: float = 0.02,
  residual: str = "shared",
  stand_in: str = "mean",
  alignment: str = "l1",
  auxiliary: str = "present",
  warmup: float = 0.0,
) -> Method:
  r"""L = CE(head([u_1; ...; u_M])) + alpha L_dao + beta L_dco, on a subset of each complete row's modalities.

  u_m = r_m + P([r_m; q_m]) where m is present, \sum_n s_n r_n / \sum_n s_n where it is not; r_m is of
  the encoder that all share, q_m of m's own (`SharedSpecific`). L_dao (`alignment_loss`) draws the r of
  a row together, L_dco (`domain_loss`) tells m from q_m; neither reads what a row lacks. Two encoders
  a modality: twice the cost where encoders dominate; S and P have 2 D^2 weights each. The log has
  "shared_std".

  Any number of modalities (of one, L_dao = L_dco = 0), labels of any task, any head of vectors. Of maps
  that is what happens at the coarsest scale; the others are shared, means over what is present
  (`DenseSharedSpecific`).

  Args:
    model: a `core.Model` whose encoders return vectors, or a `fusion.DenseFusion`.
    tx: the optimiser of all its parameters.
    alpha, beta: of L_dao and L_dco, defaults .1 and .02 (the authors').
    residual: "shared" (default: the authors' code), or "specific": u_m = q_m + P_m([q_m; r_m]), as
      its re-implementation for classification has it.
    stand_in: "mean" (default, ours) over what is present, or "first": r of the first present modality
      by name, as the authors' code has it.
    alignment: "l1" (default: the authors' code) or "mse".
    auxiliary: the losses see what is "present" (default), or only what this step has "kept".
    warmup: share of the steps, the first ones, in which nothing is dropped; default 0.

  Raises:
    ValueError: a negative weight, an unknown option, a warm-up outside [0, 1].
    Unavailable: features that are sequences, or (in `init`) of several widths in a model that is no
      `fusion.LateFusion`; a modality called "shaspec".
  """
  chosen = {
    "residual": residual,
    "stand_in": stand_in,
    "alignment": alignment,
    "auxiliary": auxiliary,
  }
  _check(model, chosen, {"alpha": alpha, "beta": beta}, warmup)
  dense = isinstance(model, fusion.DenseFusion)
  return train.supervised(
    (DenseSharedSpecific if dense else SharedSpecific)(model, residual, stand_in),
    ShaSpecLoss(alpha, beta, alignment, auxiliary),
    tx,
    perturb=Combinations(tuple(sorted(model.modalities)), warmup),
    log=shared_std,
  )


def _check(model, chosen: Mapping[str, str], weights: Mapping[str, float], warmup: float) -> None:
  for name, value in chosen.items():
    if value not in OPTIONS[name]:
      raise ValueError(f"{name} is one of {', '.join(OPTIONS[name])}, got {value!r}")
  for name, weight in weights.items():
    if not weight >= 0:
      raise ValueError(f"{name} must not be negative, got {weight}")
  if not 0 <= warmup <= 1:
    raise ValueError(f"warmup must lie in [0, 1], got {warmup}")
  if OWN in model.modalities:
    raise Unavailable(f"a modality is called {OWN!r}, which is where its own parameters are kept")
  encoders = getattr(model, "encoders", {}).values()
  steps = [e for e in encoders if getattr(e, "step_features", None) is not None]
  if steps and getattr(model.fusion, "reads_steps", False):
    raise Unavailable("it adds up feature vectors, and this fusion reads the steps of a sequence")
