"""AGM, exact: the parts of the prediction by modality are pulled back at their own speed.

Li, Li, Hu, Lei, Li, Zhou: "Boosting Multi-modal Model Performance with Adaptive Gradient
Modulation", ICCV 2023. The rule stands in `balancing/_agm.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import masks, objectives, train
from mmfuse.balancing import _agm, _groups
from mmfuse.core import Method, Objective, label_weight
from mmfuse.methods.balancing._shapley_logits import check_modality_count, shapley_logits
from mmfuse.names import REGRESSION
from mmfuse.tree import FUSED

PADDED = ("value", "exact", "shared")
ZEROS = ("constant", "gradient")


def agm(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  alpha: float = 1.0,
  cap: float | None = 10.0,
  padded: str = "value",
  zeros: str = "gradient",
  start_epoch: int = 0,
  end_epoch: int | None = None,
  clip: float | None = None,
  variant: str = "default",
) -> Method:
  """Adaptive gradient modulation of the joint loss.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    alpha, cap, padded, zeros, start_epoch, end_epoch, variant: as in `agm_objective`.
    clip: threshold and norm of `clip_if_head_exceeds` (authors' AV-MNIST run: 1; default none, as in
      their other runs).
  """
  if clip is not None:
    tx = optax.chain(_agm.clip_if_head_exceeds(clip, clip), tx)
  return train.supervised(
    model,
    agm_objective(
      model.modalities,
      alpha=alpha,
      cap=cap,
      padded=padded,
      zeros=zeros,
      start_epoch=start_epoch,
      end_epoch=end_epoch,
      variant=variant,
    ),
    tx,
  )


def agm_objective(
  modalities,
  *,
  alpha: float = 1.0,
  cap: float | None = 10.0,
  padded: str = "value",
  zeros: str = "gradient",
  start_epoch: int = 0,
  end_epoch: int | None = None,
  variant: str = "default",
) -> Objective:
  r"""{"fused": CE(\sum_m sg(phi_m) + k_m (phi_m - sg(phi_m)))}: k_m scales the cotangent of phi_m.

  phi_m are the Shapley parts of the logits (`shapley_logits`): f(all) is the training
  pass itself; in f(S) the inputs of the modalities outside S are zero and the model is in
  evaluation mode. k_m: `agm_coefficients`, the score of m being the cross-entropy of
  phi_m over the rows that have m. A row that lacks a modality plays the game of those it has: the
  parts of the absent ones are exactly 0 and the others still sum to the prediction.

  Args:
    modalities: at most 8, for 2^M - 1 passes through the heads.
    alpha: strength >= 0, default 1. The authors' 2.5 (AV-MNIST) belongs to a learning rate of 1e-4:
      on a small synthetic set, at .1, it left the uni-modal branches near chance.
    cap: see `agm_coefficients`.
    padded: how the 2^M - 2 padded passes see an encoder. "value": features of the evaluation mode,
      gradients through those of the training pass (one more forward); "exact": gradients through
      the evaluation mode too, as the authors (one more forward and backward); "shared": the
      training features (nothing more). Without batch norm and dropout the three are the same.
    zeros: the features of a zero input, one row encoded once: "gradient", trained through as the
      authors do (3 / B of a forward pass), or "constant", a fixed reference (1 / B). The authors'
      gradients are those of padded="exact", zeros="gradient"; the default is equal to them without
      batch norm and dropout.
    start_epoch, end_epoch: first and last epoch of the modulation, inclusive; None = to the end
      (authors' AV-MNIST run: 0 to 20 of 100).
    variant: "released": scores and ratios of the BalanceBenchmark code, see
      `shapley_logits` and `agm_ratios`.

  Raises:
    ValueError: an impossible option, more than 8 modalities, float labels, no fused logits.
  """
  names = tuple(sorted(modalities))
  check_modality_count(names)
  _agm.check_agm(alpha, cap, variant)
  _groups.check_choice("padded", padded, PADDED)
  _groups.check_choice("zeros", zeros, ZEROS)

  def init(batch, outputs):
    del outputs
    if objectives.task_of(batch.label) == REGRESSION:
      raise ValueError("AGM compares cross-entropies, which regression labels do not have")
    return _agm.init_agm(names)

  def apply(outputs, batch, memory, *, encode, heads, clock, **extra):
    del extra
    if outputs.logits is None:
      raise ValueError("AGM divides fused logits among modalities; this model has no fused head")
    features = _padded_features(padded, outputs.features, batch, encode)
    empty = _empty_row(batch, encode, names)
    empty = empty if zeros == "gradient" else jax.lax.stop_gradient(empty)
    subsets = _coalitions(outputs.logits, features, empty, batch, heads, names)
    phi = shapley_logits(subsets)
    still = jax.lax.stop_gradient(phi)
    judged = (
      still if variant == "default" else shapley_logits(jax.lax.stop_gradient(subsets), variant)
    )
    weight = label_weight(batch)
    scores, present = _agm.agm_scores(judged, batch.label, batch.mask, weight)
    on = clock.epoch >= start_epoch
    if end_epoch is not None:
      on = on & (clock.epoch <= end_epoch)
    memory = _agm.step_agm(memory, scores, present, alpha, cap, variant, on)
    ks = memory.coefficients
    logits = sum(still[m] + ks[m].astype(phi[m].dtype) * (phi[m] - still[m]) for m in names)
    rows = objectives.row_losses(logits, batch.label)
    return {FUSED: objectives.weighted_mean(rows, weight)}, memory

  return Objective(init, apply)


def _padded_features(padded, trained, batch, encode):
  """{modality: features that stand for a present modality in a padded pass}."""
  if padded == "shared":
    return trained
  evaluated = encode(batch.inputs, batch.mask)
  if padded == "exact":
    return evaluated
  sg = jax.lax.stop_gradient
  return jax.tree.map(lambda e, t: sg(e) + t - sg(t), evaluated, dict(trained))


def _empty_row(batch, encode, names):
  """{modality: what its encoder says to one row of zeros} in evaluation mode."""
  zeros = jax.tree.map(lambda x: jnp.zeros_like(x[:1]), {m: batch.inputs[m] for m in names})
  return encode(zeros, masks.full(names, 1))


def _coalitions(full, features, empty, batch, heads, names):
  """{subset: f(subset) [B, C]}; rows that have none of a subset get 0."""
  logits = {names: full}
  for subset in masks.combinations(names):
    if len(subset) == len(names):
      continue
    # A modality outside the subset is not absent: it is there, and says nothing.
    seen = {
      m: features[m] if m in subset else _silent(empty[m], features[m], batch.mask[m])
      for m in names
    }
    some = jnp.stack([batch.mask[m] for m in subset]).any(0)
    z = heads(seen, batch.mask).logits
    logits[subset] = jnp.where(some[:, None], z, jnp.zeros((), z.dtype))
  has_any = jnp.stack([batch.mask[m] for m in names]).any(0)
  logits[names] = jnp.where(has_any[:, None], full, jnp.zeros((), full.dtype))
  return logits


def _silent(row, like, mask):
  """The features of a zero input for every row that has the modality, zeros for the others."""

  def one(r, h):
    r = jnp.broadcast_to(r, h.shape).astype(h.dtype)
    return jnp.where(mask.reshape((-1,) + (1,) * (h.ndim - 1)), r, jnp.zeros((), h.dtype))

  return jax.tree.map(one, row, like)
