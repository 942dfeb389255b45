"""MMANet: a student of rows that lack modalities, taught by a network of complete rows.

Wei, Luo and Luo, MMANet: Margin-aware Distillation and Modality-aware Regularization for Incomplete
Multimodal Learning, CVPR 2023. From the authors' code: the body of the paper could not be read. The
second head is in `_branch.py`, the search for weak subsets in `_mining.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import fusion, masks, objectives, tasks, train
from mmfuse.core import Batch, Method, Objective, Outputs, Unavailable, label_weight
from mmfuse.methods.missing import _mining
from mmfuse.methods.missing._branch import BRANCH, Branched
from mmfuse.methods.missing._combinations import MOST, among, combination_index, hard_loss
from mmfuse.methods.missing._dropout import Drop
from mmfuse.names import CLASSIFICATION, MULTILABEL, REGRESSION, SEGMENTATION
from mmfuse.objectives._margin import check_axis, check_variant
from mmfuse.tree import FUSED

MOST_PLACES = (8, 8)  # of maps that are distilled: their similarities have (B H W)^2 entries


def mmanet(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  mad: float | None = None,
  mar: float | None = None,
  weight_axis: str = "row",
  histogram: str = "softmax",
  warm_up: float = 0.05,
  share: float = 0.5,
  variant: str = "intended",
) -> Method:
  r"""Phase "teacher": CE(fused) of all that rows have. Phase "train", from the start again, of subsets:

  L = CE(fused) + mar (1/B) \sum_i 1[s_i weak] CE(branch)_i + mad L_MAD; after the warm-up.

  s_i, what row i keeps, is drawn as in `dropout`. L_MAD is `objectives.margin_distillation` of what the
  fused head reads (`aux["latent"]`, else the features side by side), towards the teacher, which is
  frozen, in evaluation mode, and sees all of the row. The branch is a second fused head (and trunk) on
  the same features, which prediction leaves out. Weak are the subset that lacks one modality and whose
  predicted labels on validation rows differ most from those of the complete input, and each of
  its modalities alone; no label is read. They are looked for during the warm-up. Two to ten
  modalities; one class a row, or several labels, whose entropies add up.

  Of maps L_MAD is the sum of `objectives.dense_margin_distillation` over the decoder's coarsest maps and
  the fused ones of all scales but the finest, each averaged to at most 8 x 8 places; the branch is a second
  decoder, and weak is the subset whose mIoU on validation rows is furthest from that of the complete input.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    task: what the labels are: the teacher is selected by its primary score, rows being as they are.
    mad, mar: default 30 and .5, the authors' for CASIA-SURF; of a segmentation 4 and .2, for NYUv2.
    weight_axis: "row" (default), what the paper means [inferred]; "column", the released classification.
    histogram: "softmax" (default, released) or "plain": how the shares of the labels are compared.
    warm_up: share of the phase's epochs, default .05 (the authors' 5 of 100); one epoch at least.
    share: of all epochs for the teacher, default .5 (ours: as many examples as any other method).
    variant: "released": the loss of weak rows is their number times the mean over all rows, and L_MAD
      is unguarded. With weight_axis="column" that is the released classification code.

  Raises:
    ValueError: a negative weight, a share outside (0, 1), an unknown option; at `init` float labels.
    Unavailable: one modality, more than ten, or one called "branch"; in training, no validation rows.
  """
  dense = task == SEGMENTATION
  mad = (4.0 if dense else 30.0) if mad is None else mad
  mar = (0.2 if dense else 0.5) if mar is None else mar
  _check(mad, mar, warm_up)
  check_axis(weight_axis)
  check_variant(variant)
  _mining.check_form(histogram)
  names = tuple(sorted(model.modalities))
  if not 2 <= len(names) <= MOST:
    raise Unavailable(
      f"mmanet compares subsets of two to {MOST} modalities; number of them: {len(names)}"
    )
  branched = Branched(model)
  loss = Distilled(model, mad, mar, weight_axis, warm_up, variant)
  teacher = train.supervised(branched, objectives.fused, tx, augment=_whole, name="teacher")
  student = train.supervised(branched, Objective(loss.init, loss.apply), tx, perturb=Drop(names))
  if dense:
    distance: Any = _mining.ScoreGap(student.predict, names)
  else:
    distance = _mining.HistogramDistance(_mining.Predicted(student.predict, names), histogram)
  hooks = _mining.Hooks(distance, names, warm_up)
  early = train.only_phase(teacher)._replace(begin=hooks.ask, select=tasks.get(task).primary)
  late = train.only_phase(student)._replace(begin=hooks.begin, epoch_end=hooks.epoch_end)
  both = train.then(teacher._replace(phases=(early,)), student._replace(phases=(late,)), share)
  return train.with_memory(both, hooks.memory)


def _check(mad: float, mar: float, warm_up: float) -> None:
  for name, value in (("mad", mad), ("mar", mar)):
    if not value >= 0:
      raise ValueError(f"{name} must not be negative, got {value}")
  if not 0 < warm_up < 1:
    raise ValueError(f"warm_up must lie in (0, 1), got {warm_up}")


def _whole(batch: Batch, key: jax.Array) -> Batch:
  """The teacher drops nothing, whatever a step is told to."""
  del key
  return batch._replace(keep=None)


def fused_features(outputs: Outputs, mask: dict[str, jax.Array]) -> jax.Array:
  """What the fused head reads, flattened to [B, D]: aux["latent"], else all features side by side."""
  latent = outputs.aux.get("latent")
  parts = latent if hasattr(latent, "ndim") else masks.fill(outputs.features, mask)
  leaves = jax.tree.leaves(parts)
  return jnp.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)


def fused_maps(outputs: Outputs, mask: dict[str, jax.Array]) -> list[jax.Array]:
  """The decoder's coarsest maps, aux["latent"], and the fused ones of the scales between."""
  return [outputs.aux["latent"], *fusion.joined(outputs.features, mask)[1:-1]]


@dataclasses.dataclass(frozen=True)
class Distilled:
  """The student's losses. Memory: {"teacher": weights, "distance": [M], "weak": bool [C]}, C = 2^M - 1."""

  model: Any
  mad: float
  mar: float
  weight_axis: str
  warm_up: float
  variant: str

  def init(self, batch: Batch, outputs: Outputs) -> tuple:
    """Nothing yet: `_mining.Hooks.memory`."""
    del outputs
    if objectives.task_of(batch.label) == REGRESSION:
      raise ValueError("mmanet weighs rows by the entropy of classes or labels, got float labels")
    return ()

  def apply(self, outputs: Outputs, batch: Batch, memory, *, complete: Batch, clock, **extra):
    """({"fused", "distillation", "weak"}, memory)."""
    del extra
    # `complete.mask` is what the data have: what this step drops, the teacher sees.
    told = train.outputs_of(self.model, memory["teacher"], complete.inputs, complete.mask)
    if objectives.task_of(batch.label) == SEGMENTATION:
      similar = self._similar_maps(outputs, told, batch, complete)
    else:
      similar = objectives.margin_distillation(
        fused_features(outputs, batch.mask),
        fused_features(told, complete.mask),
        _distributions(told.logits, batch.label),
        batch.weight,
        weight_axis=self.weight_axis,
        variant=self.variant,
      )
    left = combination_index({m: batch.mask[m] for m in self.model.modalities})
    weak = hard_loss(
      objectives.row_losses(outputs.aux[BRANCH], batch.label),
      among(memory["weak"], left),
      label_weight(batch),
      self.variant,
    )
    begun = clock.epoch >= _mining.warm_up_epochs(clock.epochs, self.warm_up)
    return {
      FUSED: objectives.fused(outputs, batch)[FUSED],
      "distillation": jnp.where(begun, self.mad * similar, 0.0),
      "weak": jnp.where(begun, self.mar * weak, 0.0),
    }, memory

  def _similar_maps(self, outputs: Outputs, told: Outputs, batch: Batch, complete: Batch):
    """The sum over scales of what is far from the teacher's."""
    pairs = zip(fused_maps(outputs, batch.mask), fused_maps(told, complete.mask))
    found = [
      objectives.dense_margin_distillation(
        own, other, told.logits, batch.weight, most=MOST_PLACES, variant=self.variant
      )
      for own, other in pairs
    ]
    return sum(found, jnp.zeros((), jnp.float32))


def _distributions(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Logits [B, C] of classes as they are; of labels that are told one by one [B, L, 2]."""
  several = objectives.task_of(label) == MULTILABEL
  return jnp.stack([jnp.zeros_like(logits), logits], axis=-1) if several else logits
