"""Running metrics of labels that have places: segmentation masks."""

import jax.numpy as jnp

from mmfuse.core import label_weight
from mmfuse.metrics._metric import Metric
from mmfuse.metrics._running import RowMetric
from mmfuse.tree import FUSED


def dense(metric: RowMetric, void: int = -1) -> Metric:
  """`metric` of every place: logits [B, ..., C] against classes [B, ...], `void` places counting nowhere.

  A place weighs as its row does. With `metrics.classification(C)`, `macro_f1` is the mean Dice
  coefficient over the classes.
  """

  def init(outputs):
    del outputs
    return {FUSED: metric.init()}

  def update(sums, outputs, batch):
    label = batch.label
    known = label_weight(batch).reshape((-1,) + (1,) * (label.ndim - 1))
    weight = jnp.where(label == void, 0.0, known)
    logits = outputs.logits.reshape(-1, outputs.logits.shape[-1])
    flat = jnp.where(label == void, 0, label).reshape(-1)
    return {FUSED: metric.update(sums[FUSED], logits, flat, weight.reshape(-1))}

  return Metric(init, update, lambda sums: {FUSED: metric.compute(sums[FUSED])}, metric.scores)
