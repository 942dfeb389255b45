"""Linear probes: how much of the label each encoder's features give away to a linear head."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from mmfuse import objectives, tasks
from mmfuse.core import Method, Outputs, State
from mmfuse.train import _evaluate
from mmfuse.tree import FUSED


@functools.partial(jax.jit, static_argnames=("outputs",))
def _loss(flat, features, label, weight, decay, outputs):
  """Mean loss of a linear head plus decay / 2 |W|^2, and its gradient."""

  def value(flat):
    kernel, bias = flat[outputs:].reshape(features.shape[1], outputs), flat[:outputs]
    rows = objectives.row_losses(features @ kernel + bias[None], label)
    return objectives.weighted_mean(rows, weight) + 0.5 * decay * jnp.sum(jnp.square(kernel))

  return jax.value_and_grad(value)(flat)


def _fit(features, label, weight, decay, outputs, steps):
  """(kernel [d, C], bias [C]) by L-BFGS from zero."""

  def value(flat):
    loss, grad = _loss(flat.astype(np.float32), features, label, weight, np.float32(decay), outputs)
    return float(loss), np.asarray(grad, np.float64)

  start = np.zeros(outputs * (features.shape[1] + 1))
  found = scipy.optimize.minimize(
    value, start, jac=True, method="L-BFGS-B", options={"maxiter": steps}
  ).x
  return found[outputs:].reshape(-1, outputs), found[:outputs]


def linear_probe(
  method: Method,
  state: State,
  train_split: Any,
  split: Any,
  *,
  task: str,
  num_outputs: int,
  decay: float = 1e-3,
  steps: int = 100,
) -> dict[str, float]:
  """{modality: score on `split` of a linear head fitted to the frozen features of `train_split`}.

  Each head sees the labelled rows where its modality is present, features standardised by the training rows.
  It minimises the supervised loss of the task plus decay / 2 |W|^2 by L-BFGS. A modality absent
  from all rows, and features that are no array [N, D] or of no modality (a joint layer), are left out.

  Args:
    method, state: what encodes.
    train_split, split: rows to fit on, rows to score; both `data.Split`.
    task, num_outputs: as in `data.Splits`; the score is the primary one of the task.
    decay: weight decay of the head, default .001.
    steps: iterations at most, default 100.

  Reference: Alain and Bengio, "Understanding intermediate layers using linear classifier probes",
  arXiv 1610.01644, 2016.
  """
  metric = tasks.metric(task, num_outputs)
  seen = [_evaluate.predict_split(method, state, s).features for s in (train_split, split)]
  out = {}
  for m in sorted(set(seen[0]) & set(train_split.mask)):
    if not all(hasattr(f[m], "ndim") for f in seen):  # those of several networks
      continue
    fitted, judged = (np.asarray(f[m], np.float32) for f in seen)
    here, there = (
      np.asarray(s.mask[m] & _evaluate.judged(s), np.float32) for s in (train_split, split)
    )
    if fitted.ndim != 2 or not here.any() or not there.any():
      continue
    mean, scale = fitted[here > 0].mean(0), fitted[here > 0].std(0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    standard = [(x - mean) / scale for x in (fitted, judged)]
    kernel, bias = _fit(standard[0], train_split.label, here, decay, num_outputs, steps)
    logits = (standard[1] @ kernel + bias).astype(np.float32)
    outputs = Outputs(logits)
    judged_rows = _evaluate.to_batch(split)._replace(weight=cast(Any, there))
    totals = metric.update(metric.init(outputs), outputs, judged_rows)
    out[m] = float(metric.compute(totals)[FUSED][tasks.get(task).primary])
  return out
