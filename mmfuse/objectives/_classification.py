"""Supervised losses per objective: fused first, then each modality; the label decides which loss.

int [B]: softmax cross-entropy; int [B, L]: mean binary cross-entropy over labels; int [B, H, W]:
cross-entropy of every place that is not void; float [B] or [B, R]: squared error. Every loss is a mean over
present rows (places of them) whose label is known, in float32, in nats (squared units for regression).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse.core import Batch, Outputs, label_weight
from mmfuse.names import CLASSIFICATION, MULTILABEL, REGRESSION, SEGMENTATION
from mmfuse.objectives._cross_entropy import cross_entropy_loss
from mmfuse.objectives._dense import dense_loss, dense_rows
from mmfuse.tree import FUSED


def task_of(label) -> str:
  """The one of `names.TASKS` that a loss takes it for, read off the label's dtype and rank."""
  if label is None or not hasattr(label, "dtype"):
    raise ValueError(f"a supervised objective needs an array of labels, got {type(label).__name__}")
  if jnp.issubdtype(label.dtype, jnp.floating):
    return REGRESSION
  return {1: CLASSIFICATION, 3: SEGMENTATION}.get(label.ndim, MULTILABEL)


def row_losses(logits: jax.Array, label: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
  """The loss of each row, [B] float32, from logits [B, C].

  Args:
    logits: [B, C] ([B, L], [B, R] alike), of a segmentation [B, H, W, C].
    label: int [B] classes; int [B, L] of 0/1; int [B, H, W], whose loss is the mean over places that are
      not void; float [B] or [B, R] for the squared error.
    label_smoothing: eps mixes the target with the uniform distribution: (1 - eps) onehot + eps / C
      (for multi-label: with 1/2); default 0.
  """
  logits = logits.astype(jnp.float32)
  task = task_of(label)
  if task == REGRESSION:
    target = label.reshape(label.shape[0], -1).astype(jnp.float32)
    return jnp.mean(jnp.square(logits - target), axis=-1)
  if task == MULTILABEL:
    target = label.astype(jnp.float32) * (1 - label_smoothing) + 0.5 * label_smoothing
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, target), axis=-1)
  if task == SEGMENTATION:
    if label_smoothing:
      raise ValueError("label_smoothing is for one label a row, these are maps")
    return dense_rows(logits, label)
  if label_smoothing == 0.0:
    return cross_entropy_loss(logits, label)
  target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1]), label_smoothing)
  return optax.softmax_cross_entropy(logits, target)


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
  """sum w v / sum w over rows with w > 0, the only ones read; exactly 0 where there is none."""
  used = weight > 0
  weight = jnp.where(used, weight, 0.0)
  total = jnp.sum(weight)
  return jnp.sum(jnp.where(used, values, 0.0) * weight) / jnp.where(total > 0, total, 1.0)


def mean_rows(values: jax.Array, weight: jax.Array) -> jax.Array:
  """sum_i w_i v_i / sum_i w_i [D] of rows v [B, D] with w > 0, the only ones read; 0 without any."""
  total = weight.sum()
  rows = jnp.where(weight[:, None] > 0, values.astype(jnp.float32), 0.0)
  return weight @ rows / jnp.where(total > 0, total, 1.0)


def supervised_losses(
  *,
  fused: bool = True,
  unimodal: bool = True,
  label_smoothing: float = 0.0,
  class_weights: Sequence[float] | None = None,
) -> Callable[..., dict[str, jax.Array]]:
  """Builds `fn(outputs, batch, **extra) -> {"fused": scalar, <modality>: scalar, ...}`.

  Args:
    fused: whether to include the loss of the fused head.
    unimodal: whether to include one loss per modality, over the rows where it is present.
    label_smoothing: in [0, 1).
    class_weights: [C] weight of a row by its class (classification only).

  Returns:
    An objective with the names in static order: "fused", then `sorted(modalities)`.

  Raises:
    ValueError: neither part asked for, smoothing out of range, class weights for other labels, or a
      fused loss asked of a model without a fused head.
  """
  if not (fused or unimodal):
    raise ValueError("an objective needs at least one loss: set fused=True or unimodal=True")
  if not 0 <= label_smoothing < 1:
    raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
  by_class = None if class_weights is None else np.asarray(class_weights, np.float32)

  def objective(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
    del extra
    weight = label_weight(batch)
    if by_class is not None:
      if task_of(batch.label) != CLASSIFICATION:
        raise ValueError("class_weights need one integer class per row")
      weight = weight * jnp.asarray(by_class)[batch.label]

    def loss(logits, weight):
      if task_of(batch.label) == SEGMENTATION and not label_smoothing:
        # Over places: a slice counts by how many it has.
        return dense_loss(logits, batch.label, weight)
      return weighted_mean(row_losses(logits, batch.label, label_smoothing=label_smoothing), weight)

    losses = {}
    if fused:
      if outputs.logits is None:
        raise ValueError(
          "the fused loss needs fused logits, but this model has no fused head; "
          "use objectives.unimodal"
        )
      losses[FUSED] = loss(outputs.logits, weight)
    if unimodal:
      for m in sorted(outputs.unimodal_logits):
        losses[m] = loss(outputs.unimodal_logits[m], jnp.where(batch.mask[m], weight, 0.0))
    return losses

  return objective


def fused(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
  """The loss of the fused head alone (`joint` training)."""
  return supervised_losses(unimodal=False)(outputs, batch, **extra)


def unimodal(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
  """One loss per modality and none for the fused head (independent training)."""
  return supervised_losses(fused=False)(outputs, batch, **extra)


def fused_and_unimodal(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
  """The fused loss and one loss per modality: what balancing rules weigh. K = 1 + M."""
  return supervised_losses()(outputs, batch, **extra)
