"""Modality valuation: rows on which a modality contributes little come again, with it alone.

Wei, Feng, Wang and Hu, Enhancing Multimodal Cooperation via Sample-level Modality Valuation,
CVPR 2024.
"""

import dataclasses
from collections.abc import Callable, Mapping
from math import factorial
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import masks, objectives, train
from mmfuse.core import Method, Unavailable
from mmfuse.methods.balancing import _hooks
from mmfuse.names import CLASSIFICATION
from mmfuse.objectives import task_of

MOST = 8  # modalities: 2^M - 1 forward passes per valued row


@dataclasses.dataclass(frozen=True)
class _Correct:
  """(state, batch) -> bool [B, 2^M - 1]: whether the prediction from each subset is right.

  Subsets in the order of `masks.combinations`. A row without any modality of a subset is not right:
  v(empty) = 0.
  """

  model: Any

  def __call__(self, state, batch):
    right = []
    for subset in masks.combinations(sorted(self.model.modalities)):
      mask = masks.only({m: batch.mask[m] for m in sorted(self.model.modalities)}, subset)
      outputs = train.outputs_of(self.model, train.weights_of(state), batch.inputs, mask)
      some = jnp.stack([mask[m] for m in subset]).any(0)
      right.append(some & (jnp.argmax(outputs.logits, -1) == batch.label))
    return jnp.stack(right, 1)


def sample_shapley(
  values: Mapping[tuple[str, ...], np.ndarray], names: tuple[str, ...]
) -> dict[str, np.ndarray]:
  r"""phi_m = \sum_{S not containing m} |S|! (M - |S| - 1)! / M! (v(S + m) - v(S)), row by row.

  values: {subset: [N]} of all non-empty subsets of `names`; v(empty) = 0. Returns {m: [N]}, which
  sum to v(all).
  """
  by_set = {frozenset(s): np.asarray(v, np.float64) for s, v in values.items()}
  by_set[frozenset()] = np.zeros_like(next(iter(by_set.values())))
  phi = {m: np.zeros_like(by_set[frozenset()]) for m in names}
  for m in names:
    for s in [s for s in by_set if m not in s]:
      weight = factorial(len(s)) * factorial(len(names) - len(s) - 1) / factorial(len(names))
      phi[m] += weight * (by_set[s | {m}] - by_set[s])
  return phi


def copies_by_value(phi: np.ndarray) -> np.ndarray:
  """1, 2, 3 copies for phi in (.4, 1), (-.1, .4), below -.1; none at 1 or at exactly .4 or -.1."""
  return np.select(
    [(phi > 0.4) & (phi < 1), (phi > -0.1) & (phi < 0.4), phi < -0.1], [1, 2, 3], 0
  ).astype(np.int8)


def resampled_share(means: Mapping[str, float]) -> float:
  r"""D = 2/3 \sum_{i != j} |gap_i - gap_j| / (M - 1), gap = 1 - mean phi, clipped to [0, 1].

  Over ordered pairs, as in BalanceBenchmark: 4/3 of the difference for M = 2.
  """
  gaps = np.array([1.0 - means[m] for m in sorted(means)])
  if len(gaps) < 2:
    return 0.0
  total = np.abs(gaps[:, None] - gaps[None, :]).sum()
  return float(np.clip(total / (len(gaps) - 1) * 2 / 3, 0.0, 1.0))


def _values(model, state, split, rows):
  """({m: phi [n]}, {m: present [n]}) of training rows."""
  names = tuple(sorted(model.modalities))
  right = train.over_split(_Correct(model), state, split, rows)
  subsets = masks.combinations(names)
  phi = sample_shapley({s: right[:, i] for i, s in enumerate(subsets)}, names)
  return phi, {m: np.asarray(split.mask[m])[rows] for m in names}


def _by_sample(model, state, split, rng):
  """{m: copies int8 [N]}: every labelled row is valued."""
  del rng
  rows, count = _hooks.judged_rows(split), len(split)
  phi, present = _values(model, state, split, rows)
  table = {m: np.zeros(count, np.int8) for m in phi}
  for m, p in phi.items():
    # An absent modality contributes 0, but has nothing to show alone.
    table[m][rows] = np.where(present[m], copies_by_value(p), 0)
  return table


def _by_modality(part_ratio: float):
  def copies(model, state, split, rng):
    """{m: copies int8 [N]}: int(D n) of n labelled rows again with only the modality that lags."""
    judged, count = _hooks.judged_rows(split), len(split)
    rows = np.sort(rng.choice(judged, max(1, int(part_ratio * len(judged))), replace=False))
    phi, present = _values(model, state, split, rows)
    means = {m: float(p[present[m]].mean()) for m, p in phi.items() if present[m].any()}
    table = {m: np.zeros(count, np.int8) for m in phi}
    if len(means) > 1:
      lagging = min(sorted(means), key=lambda m: means[m])
      able = judged[np.asarray(split.mask[lagging])[judged]]
      wanted = min(int(resampled_share(means) * len(judged)), len(able))
      table[lagging][rng.choice(able, wanted, replace=False)] = 1
    return table

  return copies


def _method(model, tx, grow: bool, value: Callable[..., dict]) -> Method:
  names = tuple(sorted(model.modalities))
  if len(names) > MOST:
    raise Unavailable(
      f"modality valuation runs 2^M - 1 passes; {len(names)} modalities are more than {MOST}"
    )
  method = train.supervised(model, objectives.fused, tx)

  def begin(state, splits, key, clock):
    del key, clock
    if task_of(splits["train"].label) != CLASSIFICATION:
      raise Unavailable("modality valuation needs one class per row")
    return state

  def epoch_end(state, splits, key, clock):
    del clock
    copies = value(model, state, splits["train"], _hooks.generator(key))
    copies = {m: jnp.asarray(c, jnp.int8) for m, c in copies.items()}
    return train.remember(state, valuation={"copies": copies})

  def rows(state, splits, key, clock):
    del clock
    copies, count = state.memory["valuation"]["copies"], len(splits["train"])
    index, only = [np.arange(count)], [np.full(count, -1)]
    for i, m in enumerate(names):
      index.append(np.repeat(np.arange(count), np.asarray(copies[m])))
      only.append(np.full(len(index[-1]), i))
    every, seen = np.concatenate(index), np.concatenate(only)
    if not grow:
      chosen = _hooks.generator(key).choice(len(every), count, replace=False)
      every, seen = every[chosen], seen[chosen]
    return every, {m: (seen == -1) | (seen == i) for i, m in enumerate(names)}

  def table(state, num_rows):
    del state
    return {"valuation": {"copies": {m: jnp.zeros(num_rows, jnp.int8) for m in names}}}

  phase = train.only_phase(method)._replace(begin=begin, epoch_end=epoch_end, rows=rows)
  return train.with_memory(method._replace(phases=(phase,)), table)


def valuation_sample(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  grow: bool = False,
) -> Method:
  """The joint loss; after each epoch every labelled row is valued, and comes again by its values.

  phi_m of a row: Shapley value in whether the prediction from a subset is right. Modality m of a
  row with phi in (.4, 1), (-.1, .4), below -.1 gives 1, 2, 3 copies with all others masked. The
  first epoch has every row once. Classification only; at most 8 modalities. Most rows of an epoch
  then show one modality: with two, a row that no subset gets right comes whole once in five.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    grow: False draws as many rows as the training set has from rows and copies, so that examples
      seen equal those of other methods; True trains on all of them, as published.

  Raises:
    Unavailable: too many modalities, labels that are not one class per row (when training starts).
  """
  return _method(model, tx, grow, _by_sample)


def valuation_modality(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  part_ratio: float = 0.2,
  grow: bool = False,
) -> Method:
  """As `valuation_sample`, by the mean values of a part of the training set.

  int(D N) rows come again with only the modality of the smallest mean phi (two modalities: the
  better one masked), D from `resampled_share`. For more modalities an extension: only the one that
  lags most is shown alone.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    part_ratio: share of the training rows that are valued, default .2.
    grow: see `valuation_sample`.

  Raises:
    ValueError: a part_ratio outside (0, 1], and as `valuation_sample`.
  """
  if not 0 < part_ratio <= 1:
    raise ValueError(f"part_ratio must lie in (0, 1], got {part_ratio}")
  return _method(model, tx, grow, _by_modality(part_ratio))
