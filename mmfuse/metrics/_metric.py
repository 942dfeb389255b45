"""Running metrics of whole outputs: what a task is judged by in every epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.core import Batch, Outputs, label_weight
from mmfuse.metrics._running import RowMetric, on_host, ratio, used_rows
from mmfuse.metrics._scores import Score
from mmfuse.tree import FUSED


class Metric(NamedTuple):
  """Scores of everything that a model says, as three pure functions.

  `batch.mask` says which modalities the outputs were made of; a row of weight 0 counts nowhere.
  """

  # outputs (shapes are enough) -> accumulator, all zeros: it has a part for each head there is
  init: Callable[[Outputs], Any]
  update: Callable[[Any, Outputs, Batch], Any]  # (accumulator, outputs, batch) -> accumulator
  # accumulator -> {head: {score: float32}}, called on the host with arrays of numpy
  compute: Callable[[Any], dict[str, dict[str, Any]]]
  scores: tuple[Score, ...]  # that `compute` gives each head
  # (metric, accumulators of validation rows) -> the metric with what it decides by, as thresholds, taken
  # from them; it shares compiled evaluations with `metric`. None = it decides nothing.
  fit: Callable[..., "Metric"] | None = None


def heads_of(outputs: Outputs) -> dict[str, Any]:
  heads = {} if outputs.logits is None else {FUSED: outputs.logits}
  return {**heads, **dict(outputs.unimodal_logits)}


def per_head(metric: RowMetric) -> Metric:
  """`metric` of the fused logits and of each modality's, over the rows whose label is known.

  A modality's head is judged in the rows that have it. Heads: "fused", where there is one, and the
  names of the modalities.
  """

  def init(outputs):
    return {head: metric.init() for head in heads_of(outputs)}

  def update(sums, outputs, batch):
    heads, known = heads_of(outputs), label_weight(batch)
    weight = {h: jnp.where(batch.mask[h], known, 0.0) if h in batch.mask else known for h in heads}
    return {h: metric.update(sums[h], z, batch.label, weight[h]) for h, z in heads.items()}

  def compute(sums):
    return {head: metric.compute(own) for head, own in sums.items()}

  return Metric(init, update, compute, metric.scores)


class RowSums(NamedTuple):
  """What `row_mean` adds up."""

  total: jax.Array  # weighted sum of the values
  weight: jax.Array
  broken: jax.Array  # how many rows that count had a value that is not finite


def row_mean(
  name: str, *, larger_is_better: bool = True, share: bool = False, words: str = ""
) -> Metric:
  """The weighted mean over rows of `outputs.aux[name]` [B], under the head "fused"; needs no label.

  For phases and tasks that are judged by what a model says of a row: an evidence lower bound, say.

  Args:
    name: in `aux`, and of the score.
    larger_is_better, share, words: the passport, see `Score`; default True, False, the name.

  Raises:
    KeyError: from `update`, where the outputs hold no such array.
  """
  zero = lambda: jnp.zeros((), jnp.float32)

  def init(outputs):
    del outputs
    return RowSums(zero(), zero(), zero())

  def update(sums, outputs, batch):
    value = outputs.aux[name].astype(jnp.float32)[:, None]
    weight, value, _, broken = used_rows(batch.weight, value, batch.index)
    total = sums.total + jnp.sum(weight * value[:, 0])
    return RowSums(total, sums.weight + jnp.sum(weight), sums.broken + broken)

  def compute(xp, sums):
    return {name: ratio(sums.total, sums.weight, xp.nan, xp)}

  finish = on_host(compute)
  passport = Score(name, larger_is_better, share, words)
  return Metric(init, update, lambda sums: {FUSED: finish(sums)}, (passport,))
