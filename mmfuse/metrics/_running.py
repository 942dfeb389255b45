"""Running metrics: pytree accumulators over padded batches, jit-able, float32 sums.

A row of weight 0 (padding, an absent modality, an unknown label) is never read, whatever it holds.
Every metric is NaN where no row counted: there is nothing to report, and a table shows `n/a`. It is
also NaN where a row that counts has a logit that is not finite: a model that diverged has no score.
`compute` makes these NaN on the host; no sum ever holds one (`jax.debug_nans` stays quiet).
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.metrics._scores import Score, scores

BINS = 15  # of the calibration error, as in `ece`
CLASSIFICATION_SCORES = scores("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")
MULTI_LABEL_SCORES = scores("accuracy", "micro_f1", "macro_f1", "subset_accuracy", "nll")
REGRESSION_SCORES = scores("r2", "mae", "rmse", "pearson")


class RowMetric(NamedTuple):
  """A running metric of logits and labels as three pure functions; `per_head` makes a `Metric` of it."""

  init: Callable[[], Any]  # () -> accumulator, all zeros
  update: Callable[..., Any]  # (accumulator, logits [B, C], label, weight [B]) -> accumulator
  # accumulator -> {name: float32 scalar}, called on the host with arrays of numpy
  compute: Callable[[Any], dict[str, Any]]
  scores: tuple[Score, ...]  # that `compute` gives


class ClassificationSums(NamedTuple):
  """What `classification` adds up."""

  confusion: jax.Array  # [C, C] weight of rows of class i said to be j; exact to 2^24
  nll: jax.Array  # weighted sum of -log softmax[label], in nats
  # [BINS] weighted sum of (right - confidence) of the rows in each bin of confidence
  gap: jax.Array
  broken: jax.Array  # how many rows had logits that are not finite


class MultilabelSums(NamedTuple):
  """What `multi_label` adds up."""

  counts: jax.Array  # [L, 2, 2] weight of rows by (label, prediction)
  exact: jax.Array  # weight of rows with every label right
  nll: jax.Array  # weighted sum of the mean binary cross-entropy over labels, in nats
  broken: jax.Array  # how many rows had logits that are not finite


class RegressionSums(NamedTuple):
  """What `regression` adds up: moments about running means, so that an offset costs no digits."""

  weight: jax.Array  # total weight
  mean: jax.Array  # [2, R] of label and prediction
  moment: jax.Array  # [2, 2, R] sums of products of deviations from those means
  absolute: jax.Array  # [R] sum of |error|
  squared: jax.Array  # [R] sum of error^2
  broken: jax.Array  # how many rows had predictions that are not finite


def ratio(a: Any, b: Any, otherwise: float, xp: ModuleType = jnp) -> Any:
  return xp.where(b > 0, a / xp.where(b > 0, b, 1.0), otherwise)


def on_host(
  compute: Callable[[ModuleType, Any], dict[str, Any]],
) -> Callable[[Any], dict[str, Any]]:
  """`compute(xp, sums)` with numpy, NaN where a row was broken; with jax.numpy under a trace."""

  def run(acc):
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(acc))
    xp = jnp if traced else np
    acc = acc if traced else jax.tree.map(np.asarray, acc)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is inf, as on a device
      values = compute(xp, acc)
    return {k: xp.where(acc.broken > 0, xp.nan, v).astype(xp.float32) for k, v in values.items()}

  return run


def _columns(logits: jax.Array, expected: int, what: str) -> jax.Array:
  if logits.ndim != 2 or logits.shape[-1] != expected:
    raise ValueError(
      f"the metric expects logits [B, {expected}] ({what}), got {list(logits.shape)}"
    )
  return logits.astype(jnp.float32)


def used_rows(weight: jax.Array, logits: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
  """(weight, logits, label, broken): 0 in rows of weight 0 and in logits that are not finite.

  broken: how many rows that count have such logits.
  """
  used, finite = weight > 0, jnp.isfinite(logits).all(-1)

  def select(rows, x):
    return jnp.where(rows.reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))

  broken = jnp.sum(used & ~finite, dtype=jnp.float32)
  return (
    select(used, weight.astype(jnp.float32)),
    select(used & finite, logits),
    select(used, label),
    broken,
  )


def _positive(name: str, value: int) -> None:
  if not isinstance(value, int | np.integer) or value < 1:
    raise ValueError(f"{name} must be a positive whole number, got {value!r}")


def classification(num_classes: int) -> RowMetric:
  r"""Accuracy, balanced accuracy, macro-F1, negative log likelihood and calibration error.

  With N the confusion matrix [C, C] (row: label, column: prediction, ties to the lower class):
  accuracy = tr N / sum N;
  balanced_accuracy = mean_c N_cc / sum_j N_cj over classes that occur in the labels;
  macro_f1 = mean_c 2 N_cc / (sum_j N_cj + sum_i N_ic) over classes that occur in labels or
  predictions (a class without a prediction counts 0, one that occurs nowhere is left out, as in
  scikit-learn);
  nll = mean of -log softmax(logits)[label], in nats;
  ece = sum_b |sum of (right - confidence) in bin b| / sum N, 15 bins: see `ece`.

  `update` takes logits [B, C], label int [B] in 0..C-1 and weight [B].
  Raises ValueError for a num_classes below 1 and for logits of another width.
  """
  _positive("num_classes", num_classes)

  def init():
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)
    return ClassificationSums(zeros(num_classes, num_classes), zeros(), zeros(BINS), zeros())

  def update(acc, logits, label, weight):
    logits = _columns(logits, num_classes, "one column per class")
    weight, logits, label, broken = used_rows(weight, logits, label)
    said = jnp.argmax(logits, -1)
    log_p = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(log_p, label[:, None], axis=-1)[:, 0]
    confidence = jnp.exp(jnp.max(log_p, -1))
    index = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    return ClassificationSums(
      acc.confusion.at[label, said].add(weight),
      acc.nll - jnp.sum(weight * own),
      acc.gap.at[index].add(weight * ((said == label) - confidence)),
      acc.broken + broken,
    )

  def compute(xp, acc):
    right, total = acc.confusion.diagonal(), acc.confusion.sum()
    labels, predictions = acc.confusion.sum(1), acc.confusion.sum(0)
    recall = ratio(right, labels, 0.0, xp)
    f1 = ratio(2 * right, labels + predictions, 0.0, xp)
    share = lambda a, b: ratio(a, b, xp.nan, xp)
    return {
      "accuracy": share(right.sum(), total),
      "balanced_accuracy": share(recall.sum(), (labels > 0).sum()),
      "macro_f1": share(f1.sum(), (labels + predictions > 0).sum()),
      "nll": share(acc.nll, total),
      "ece": share(xp.abs(acc.gap).sum(), total),
    }

  return RowMetric(init, update, on_host(compute), CLASSIFICATION_SCORES)


def multi_label(num_labels: int) -> RowMetric:
  """Accuracy (mean over labels), micro-F1, macro-F1, subset accuracy and likelihood.

  A label is predicted where its logit is positive. F1 = 2 TP / (2 TP + FP + FN), over all cells
  (micro) or per label and then averaged (macro; a label that neither occurs nor is predicted counts
  0). Subset accuracy: the share of rows with every label right. nll: the mean over labels and rows
  of the binary cross-entropy, in nats.

  `update` takes logits [B, L], label [B, L] of 0/1 and weight [B].
  Raises ValueError for a num_labels below 1 and for logits of another width.
  """
  _positive("num_labels", num_labels)

  def init():
    zero = jnp.zeros((), jnp.float32)
    return MultilabelSums(jnp.zeros((num_labels, 2, 2), jnp.float32), zero, zero, zero)

  def update(acc, logits, label, weight):
    logits = _columns(logits, num_labels, "one column per label")
    weight, logits, label, broken = used_rows(weight, logits, label.astype(jnp.float32))
    truth, said = label > 0.5, logits > 0
    rows = jnp.stack([~truth, truth], -1).astype(jnp.float32) * weight[:, None, None]
    columns = jnp.stack([~said, said], -1).astype(jnp.float32)
    counts = jnp.einsum("bli,blj->lij", rows, columns, precision=jax.lax.Precision.HIGHEST)
    exact = jnp.sum(weight * (truth == said).all(-1))
    signed = jnp.where(truth, logits, -logits)
    nll = jnp.sum(weight * jnp.mean(jax.nn.softplus(-signed), -1))
    return MultilabelSums(
      acc.counts + counts, acc.exact + exact, acc.nll + nll, acc.broken + broken
    )

  def compute(xp, acc):
    hit, missed, false = acc.counts[:, 1, 1], acc.counts[:, 1, 0], acc.counts[:, 0, 1]
    weight, cells, errors = acc.counts[0].sum(), acc.counts.sum(), (missed + false).sum()
    known = lambda x: xp.where(weight > 0, x, xp.nan)
    return {
      "accuracy": ratio(cells - errors, cells, xp.nan, xp),
      "micro_f1": known(ratio(2 * hit.sum(), 2 * hit.sum() + errors, 0.0, xp)),
      "macro_f1": known(ratio(2 * hit, 2 * hit + missed + false, 0.0, xp).mean()),
      "subset_accuracy": ratio(acc.exact, weight, xp.nan, xp),
      "nll": ratio(acc.nll, weight, xp.nan, xp),
    }

  return RowMetric(init, update, on_host(compute), MULTI_LABEL_SCORES)


def _merge(a: RegressionSums, b: RegressionSums) -> RegressionSums:
  """The moments of two groups of rows together (Chan, Golub, LeVeque, 1979)."""
  weight = a.weight + b.weight
  share = ratio(b.weight, weight, 0.0)
  delta = b.mean - a.mean
  moment = a.moment + b.moment + delta[:, None] * delta[None] * (a.weight * share)
  return RegressionSums(
    weight,
    a.mean + delta * share,
    moment,
    a.absolute + b.absolute,
    a.squared + b.squared,
    a.broken + b.broken,
  )


def regression(num_outputs: int = 1, unit: Sequence[float] | None = None) -> RowMetric:
  """R^2, mean absolute error, root mean squared error and Pearson correlation, means over outputs.

  r2 = 1 - sum (y - p)^2 / sum (y - mean y)^2; where the label is constant (to float32 resolution)
  it is 1 for a perfect prediction and 0 otherwise, as in scikit-learn. mae, rmse: times `unit` [R],
  the standard deviations that labels and predictions were divided by (default 1: in their own).
  pearson: 0 where label or prediction is constant.

  `update` takes predictions [B, R] as `logits`, label [B] or [B, R] and weight [B].
  Raises ValueError for a num_outputs below 1 and for predictions of another width.
  """
  _positive("num_outputs", num_outputs)
  scale = np.ones(num_outputs, np.float32) if unit is None else np.asarray(unit, np.float32)
  if scale.shape != (num_outputs,):
    raise ValueError(f"unit has {scale.size} values, expected {num_outputs}")

  def init():
    zeros = lambda *shape: jnp.zeros((*shape, num_outputs), jnp.float32)
    zero = jnp.zeros((), jnp.float32)
    return RegressionSums(zero, zeros(2), zeros(2, 2), zeros(), zeros(), zero)

  def update(acc, logits, label, weight):
    predicted = _columns(logits, num_outputs, "one column per output")
    label = label.reshape(label.shape[0], -1).astype(jnp.float32)
    if label.shape != predicted.shape:
      raise ValueError(f"label has {label.shape[-1]} outputs per row, the prediction {num_outputs}")
    weight, predicted, label, broken = used_rows(weight, predicted, label)
    total, w = jnp.sum(weight), weight[None, :, None]
    both = jnp.stack([label, predicted])
    mean = ratio(jnp.sum(w * both, 1), total, 0.0)
    away = both - mean[:, None]
    moment = jnp.sum(w[None] * away[:, None] * away[None], 2)
    error = label - predicted
    return _merge(
      acc,
      RegressionSums(
        total, mean, moment, jnp.sum(w[0] * jnp.abs(error), 0), jnp.sum(w[0] * error**2, 0), broken
      ),
    )

  def compute(xp, acc):
    # Below this the deviations are rounding errors of the mean itself.
    floor = acc.weight * xp.square(4 * xp.finfo(xp.float32).eps * acc.mean)
    variance = xp.stack([acc.moment[0, 0], acc.moment[1, 1]])
    constant = variance <= floor
    perfect = (acc.squared == 0).astype(xp.float32)
    r2 = xp.where(constant[0], perfect, 1 - ratio(acc.squared, variance[0], 0.0, xp))
    spread = xp.sqrt(variance[0]) * xp.sqrt(variance[1])
    pearson = ratio(acc.moment[0, 1], spread, 0.0, xp)
    known = lambda x: xp.where(acc.weight > 0, x.mean(), xp.nan)
    return {
      "r2": known(r2),
      "mae": known(scale * ratio(acc.absolute, acc.weight, 0.0, xp)),
      "rmse": known(scale * xp.sqrt(ratio(acc.squared, acc.weight, 0.0, xp))),
      "pearson": known(xp.where(constant.any(0), 0.0, pearson)),
    }

  return RowMetric(init, update, on_host(compute), REGRESSION_SCORES)
