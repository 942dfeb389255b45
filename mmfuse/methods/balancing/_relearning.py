"""Diagnosing and re-learning: encoders whose features memorise the training rows start afresh.

Wei, Li, Feng, Hu: "Diagnosing and Re-learning for Balanced Multimodal Learning", ECCV 2024. A
partial re-initialisation, the stronger, the purer the clusters of the features are on training rows
than on validation rows.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import objectives, train
from mmfuse.core import Method, State
from mmfuse.methods.balancing import _hooks
from mmfuse.names import CLASSIFICATION


def relearning(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  strength: float = 3.0,
  at: Sequence[float] = (0.5,),
  epochs: Sequence[int] | None = None,
) -> Method:
  r"""The joint loss; now and then encoder m <- w_m initial + (1 - w_m) current, w_m = tanh(3 p_m).

  p_m = |purity_train - purity_validation|: C clusters of the min-max scaled features of the rows
  that have m, each split by itself. Optimiser and batch statistics stay as they are.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    strength: lambda >= 0 (authors: 3).
    at: when, as shares of the epochs, in (0, 1). BalanceBenchmark: after 15 and 30 of 30 epochs, of
      which the second is the end of training: so .5.
    epochs: instead of `at`: after how many epochs (15, 30). At most two times either way.

  Raises:
    ValueError: an impossible number, labels that are not one class per row.
    Unavailable: the data have no validation split.
  """
  if not strength >= 0:
    raise ValueError(f"strength must be at least 0, got {strength}")
  if len(at if epochs is None else epochs) > 2:
    raise ValueError(
      f"encoders are re-initialised at most two times; got {list(at if epochs is None else epochs)}"
    )
  if epochs is None and not all(0 < share < 1 for share in at):
    raise ValueError(f"at= takes shares of the epochs, in (0, 1); got {list(at)}")
  if epochs is not None and not all(e >= 1 for e in epochs):
    raise ValueError(f"epochs= takes numbers of epochs done, from 1; got {list(epochs)}")
  names = tuple(sorted(model.modalities))
  method = train.supervised(model, objectives.fused, tx)

  def due(done: int, total: int) -> bool:
    moments = list(epochs) if epochs is not None else [max(1, round(a * total)) for a in at]
    return done in moments and done < total

  def begin(state: State, splits, key, clock) -> State:
    del key, clock
    train.validation_of(splits, "relearning")
    if objectives.task_of(splits["train"].label) != CLASSIFICATION:
      raise ValueError("relearning compares clusters with classes: it needs one integer per row")
    return state

  def epoch_end(state: State, splits, key, clock) -> State:
    if not due(clock.epoch, clock.epochs):
      return state
    purities = [
      modality_purities(method, state, splits[s], _hooks.generator(jax.random.fold_in(key, i)))
      for i, s in enumerate(("train", "validation"))
    ]
    first, params, weights = state.memory["relearning"]["initial"], dict(state.params), {}
    for m in names:
      w = reinit_weight(purities[0][m], purities[1][m], strength)
      params[m] = jax.tree.map(lambda a, b, w=w: w * a + (1 - w) * b, first[m], params[m])
      weights[m] = jnp.float32(w)
    return train.remember(
      state._replace(params=params), relearning={"initial": first, "weights": weights}
    )

  method = train.with_memory(
    method,
    lambda state, num_rows: {
      "relearning": {
        "initial": {m: jax.tree.map(jnp.copy, state.params[m]) for m in names},
        "weights": {m: jnp.zeros((), jnp.float32) for m in names},
      }
    },
  )
  phase = train.only_phase(method)
  return method._replace(phases=(phase._replace(begin=begin, epoch_end=epoch_end),))


def purity(label: np.ndarray, cluster: np.ndarray) -> float:
  r"""\sum_k max_c |{i: cluster_i = k, label_i = c}| / N: the share of rows in their cluster's class.

  label, cluster: int [N]. NaN for no rows.
  """
  label, cluster = np.asarray(label), np.asarray(cluster)
  if len(label) == 0:
    return float("nan")
  table = np.zeros((int(cluster.max()) + 1, int(label.max()) + 1), np.int64)
  np.add.at(table, (cluster, label), 1)
  return float(table.max(axis=1).sum() / len(label))


def reinit_weight(train_purity: float, validation_purity: float, strength: float = 3.0) -> float:
  r"""w = tanh(strength |purity_train - purity_validation|) in [0, 1); 0 where one of them is NaN."""
  gap = abs(train_purity - validation_purity)
  return math.tanh(strength * gap) if math.isfinite(gap) else 0.0


def modality_purities(
  method: Method, state: State, split: Any, generator: np.random.Generator
) -> dict[str, float]:
  """{modality: purity of the clusters of its features}, over the labelled rows that have it."""
  outputs, known = train.predict_split(method, state, split), train.judged(split)
  num, out = np.asarray(outputs.logits).shape[-1], {}
  for m in sorted(outputs.features):
    rows = np.asarray(split.mask[m]) & known
    features = np.asarray(outputs.features[m], np.float64)
    features = features.reshape(len(features), -1)[rows]  # a part may have no such row
    clusters = k_means(_scaled(features), num, generator) if len(features) else np.zeros(0, int)
    out[m] = purity(np.asarray(split.label)[rows], clusters)
  return out


def _scaled(features: np.ndarray) -> np.ndarray:
  """Every column to [0, 1]; a constant one to 0."""
  low, span = features.min(0), np.ptp(features, axis=0)
  return np.where(span > 0, (features - low) / np.where(span > 0, span, 1.0), 0.0)


def k_means(
  points: np.ndarray, num: int, generator: np.random.Generator, iterations: int = 50
) -> np.ndarray:
  """int [N]: Lloyd's clusters of points [N, D] from k-means++ centres; an empty one stays put."""
  centres = _spread(points, min(num, len(points)), generator)
  cluster = np.full(len(points), -1)
  for _ in range(iterations):
    nearest = _squares(points, centres).argmin(1)
    if (nearest == cluster).all():
      break
    cluster = nearest
    counts = np.bincount(cluster, minlength=len(centres))
    sums = np.eye(len(centres))[cluster].T @ points
    full = counts > 0
    centres[full] = sums[full] / counts[full, None]
  return cluster


def _spread(points, num, generator):
  """Centres drawn in proportion to the squared distance from those before."""
  centres = [points[generator.integers(len(points))]]
  distance = _squares(points, centres[0][None])[:, 0]
  for _ in range(num - 1):
    total = distance.sum()
    chance = distance / total if total > 0 else np.full(len(points), 1 / len(points))
    centres.append(points[generator.choice(len(points), p=chance)])
    distance = np.minimum(distance, _squares(points, centres[-1][None])[:, 0])
  return np.stack(centres)


def _squares(points, centres):
  """Squared distances [N, K]."""
  inner = points @ centres.T
  return np.maximum((points**2).sum(1)[:, None] - 2 * inner + (centres**2).sum(1)[None], 0.0)
