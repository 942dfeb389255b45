"""Evaluation: padded batches, nothing dropped, every subset of modalities in one compilation."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmfuse import masks, metrics
from mmfuse.core import Batch, Method, Outputs, Source, State, label_weight
from mmfuse.tree import FUSED


def to_batch(split: Source) -> Batch:
  """All rows of a split as one `Batch` of host arrays; weights are the split's, 1 by default."""
  whole = getattr(split, "batch", None)  # as they lie in memory, where the source has them there
  return next(iter(split.batches(len(split)))) if whole is None else whole()


def padded_batches(split: Any, batch_size: int) -> Batch:
  """A `Batch` of stacked batches [N, B, ...]; the last is padded with rows of weight 0, all absent.

  B is at most `batch_size`: equal parts, so that 643 rows at 512 are two batches of 322 and not 1,024
  rows, a third of them padding that every epoch pays for.
  """
  batch = to_batch(split)
  rows = batch.weight.shape[0]
  if rows == 0:
    raise ValueError("the split to evaluate is empty")
  if batch_size < 1:
    raise ValueError(f"batch_size must be at least 1, got {batch_size}")
  count = -(-rows // batch_size)
  size = -(-rows // count)
  index = np.minimum(np.arange(count * size), rows - 1).reshape(count, size)
  stacked = jax.tree.map(lambda x: np.asarray(x)[index], batch)
  real = np.arange(count * size).reshape(count, size) < rows
  return stacked._replace(
    weight=stacked.weight * real, mask={m: v & real for m, v in stacked.mask.items()}
  )


def judged(split: Any) -> np.ndarray:
  """bool [N]: the rows whose label counts, known and of a weight above 0."""
  return np.asarray(label_weight(to_batch(split)) > 0)


def absent(split: Any) -> frozenset[str]:
  """The modalities that no judged row has: their heads have no score."""
  rows = judged(split)
  return frozenset(m for m, v in split.mask.items() if not np.any(np.asarray(v) & rows))


def _update(predict, metric, totals, state, batch, keep):
  """Adds one batch to an accumulator; a row of weight 0 has no modality."""
  mask = {m: v & keep[m] & (batch.weight > 0) for m, v in batch.mask.items()}
  outputs = predict(state, batch.inputs, mask)
  totals = metric.init(outputs) if totals is None else totals
  return metric.update(totals, outputs, batch._replace(mask=mask))


@functools.partial(jax.jit, static_argnames=("predict", "metric"))
def _update_jit(predict, metric, totals, state, batch, keep):
  return _update(predict, metric, totals, state, batch, keep)


def _run(predict, metric, state, batches, keep):
  first = jax.tree.map(lambda x: x[0], batches)
  said = jax.eval_shape(lambda: predict(state, first.inputs, first.mask))
  totals = metric.init(said)
  totals, _ = jax.lax.scan(
    lambda t, batch: (_update(predict, metric, t, state, batch, keep), None), totals, batches
  )
  return totals


def _scores(metric, totals) -> dict[str, dict[str, Any]]:
  """{head: {score: value}} of an accumulator, on the host: a NaN there is an answer, not a fault."""
  return metric.compute(jax.device_get(totals))


@functools.partial(jax.jit, static_argnames=("predict", "metric", "stacked"))
def _scan_batches(predict, metric, state, batches, keep, stacked):
  run = lambda s: _run(predict, metric, s, batches, keep)
  return jax.vmap(run)(state) if stacked else run(state)


def scan_batches(predict, metric, state, batches, keep, stacked=False):
  """{head: {metric: value}} over stacked batches in one call; `stacked`: states and values [S, ...]."""
  totals = jax.device_get(_scan_batches(predict, metric, state, batches, keep, stacked))
  if not stacked:
    return _scores(metric, totals)
  runs = len(jax.tree.leaves(totals)[0])
  each = [_scores(metric, jax.tree.map(lambda x, i=i: x[i], totals)) for i in range(runs)]
  return jax.tree.map(lambda *v: np.stack(v), *each)


def _of_view(batches: Batch, mask, counts) -> Batch:
  """Batches whose rows have what `mask` says, and weigh nothing where not `counts`."""
  return batches._replace(mask=mask, weight=batches.weight * counts)


@functools.partial(jax.jit, static_argnames=("predict", "metric", "stacked"))
def map_views(predict, metric, state, batches, masks, counts, stacked=False):
  """{head: accumulators [V, ...]} for masks {m: bool [V, N, B]}, counts alike: one program whatever V."""
  keep = {m: np.array(True) for m in masks}

  def each(state):
    one = lambda v: _run(predict, metric, state, _of_view(batches, *v), keep)
    return jax.lax.map(one, (masks, counts))

  return jax.vmap(each)(state) if stacked else each(state)


def loop_batches(predict, metric, state, batches, keep):
  """As `scan_batches`, from a Python loop: what is fast on CPU where `lax.conv` is involved."""
  totals = None
  for i in range(batches.weight.shape[0]):
    batch = jax.tree.map(lambda x, i=i: x[i], batches)
    totals = _update_jit(predict, metric, totals, state, batch, keep)
  return _scores(metric, totals)


def seen(state: State) -> State:
  """The state without its optimiser: what predicts. Methods then share compiled evaluations."""
  return state._replace(opt={})


def keep_all(modalities: Iterable[str]) -> dict[str, np.ndarray]:
  """{modality: True}: the traced switch of `evaluate`, all on."""
  return {m: np.array(True) for m in modalities}


def evaluate(
  method: Method,
  state: State,
  split: Any,
  *,
  metric: metrics.Metric,
  present: Iterable[str] | None = None,
  batch_size: int = 512,
  predict: Callable[..., Outputs] | None = None,
) -> dict[str, dict[str, float]]:
  """{head: {metric: value}} of one state on a split, all labelled rows counted once.

  NaN for a modality that no row has, and where logits are not finite.

  Args:
    method, state: what predicts.
    split: `inputs`, `label`, `mask` as in `data.Split`.
    metric: of a task (`tasks.metric`), or one of your own.
    present: modalities to keep; None keeps what the split's mask keeps.
    batch_size: rows per compiled call, default 512; the last batch is padded and masked.
    predict: overrides `method.predict` (a phase's own); None = the method's.

  Raises:
    ValueError: `present` names an unknown modality.
  """
  kept = tuple(split.mask) if present is None else tuple(present)
  return evaluate_subsets(
    method, state, split, metric=metric, subsets=[kept], batch_size=batch_size, predict=predict
  )[0][1]


def evaluate_subsets(
  method: Method,
  state: State,
  split: Any,
  *,
  metric: metrics.Metric,
  subsets: Iterable[tuple[str, ...]] | None = None,
  batch_size: int = 512,
  predict: Callable[..., Outputs] | None = None,
) -> list[tuple[tuple[str, ...], dict[str, dict[str, float]]]]:
  """[(subset, scores)]: as `evaluate` for several subsets of modalities, in one compiled call.

  Args:
    method, state, split, metric, batch_size, predict: as in `evaluate`.
    subsets: tuples of modalities; None = all 2^M - 1.

  Raises:
    ValueError: a subset names an unknown modality.
  """
  names = sorted(split.mask)
  chosen = [tuple(s) for s in (masks.combinations(names) if subsets is None else subsets)]
  for subset in chosen:
    unknown = sorted(set(subset) - set(names))
    if unknown:
      raise ValueError(f"modality {unknown[0]!r} not in data; available: {', '.join(names)}")
  views = [subset_view(split, subset) for subset in chosen]
  found = evaluate_views(
    method, state, split, views, metric=metric, batch_size=batch_size, predict=predict
  )
  return list(zip(chosen, found))


class View(NamedTuple):
  """A question to a state: which modalities the N rows of a split have, and which rows are judged."""

  mask: Mapping[str, np.ndarray]  # {m: bool [N]}, True = present
  counts: np.ndarray | None = None  # bool [N]; None = all


def subset_view(split: Any, subset: Iterable[str], *, covered: bool = False) -> View:
  """The split with nothing but `subset`.

  Args:
    split: `data.Split`.
    subset: modalities that stay; the others become absent.
    covered: judge the rows that have some of it; default: all rows.
  """
  kept = set(subset)
  mask = {m: np.asarray(v) & (m in kept) for m, v in split.mask.items()}
  return View(mask, np.any([mask[m] for m in sorted(mask)], axis=0) if covered else None)


class StackedViews(NamedTuple):
  """Different views as arrays, beside the batches [N, B] that they look at."""

  batches: Batch
  masks: dict[str, Any]  # {m: bool [V, N, B]}
  counts: Any  # bool [V, N, B]


def stack_views(
  split: Any, views: Sequence[View], batch_size: int = 512
) -> tuple[StackedViews, list[int]]:
  """-> (the views that differ, the place of each among them)."""
  batches = padded_batches(split, batch_size)
  names, rows = sorted(split.mask), len(next(iter(split.mask.values())))
  found: dict[bytes, int] = {}
  columns: list[np.ndarray] = []
  place: list[int] = []
  for mask, counts in views:
    counted = np.ones(rows, bool) if counts is None else np.asarray(counts, bool)
    column = np.stack([*(np.asarray(mask[m], bool) for m in names), counted])
    place.append(found.setdefault(column.tobytes(), len(found)))
    columns += [column] * (len(found) > len(columns))
  arrays = np.stack(columns)[:, :, batches.index]  # [V, M + 1, N, B]
  masks_ = {m: arrays[:, i] for i, m in enumerate(names)}
  return StackedViews(batches, masks_, arrays[:, -1]), place


def scan_views(predict, metric, state, views: StackedViews, stacked=False) -> list[dict]:
  """[{head: {score: value}}] of each view in one call; `stacked`: states and values [S, ...]."""
  totals = jax.device_get(map_views(predict, metric, state, *views, stacked))
  at = lambda *i: _scores(metric, jax.tree.map(lambda x: x[i], totals))
  number = len(views.counts)
  if not stacked:
    return [at(v) for v in range(number)]
  runs = range(len(jax.tree.leaves(totals)[0]))
  return [jax.tree.map(lambda *x: np.stack(x), *(at(r, v) for r in runs)) for v in range(number)]


def loop_views(predict, metric, state, views: StackedViews) -> list[dict]:
  """As `scan_views`, from a Python loop over views and batches; it compiles what `loop_batches` does."""
  keep = keep_all(views.masks)
  return [
    loop_batches(
      predict,
      metric,
      state,
      _of_view(views.batches, {m: x[v] for m, x in views.masks.items()}, views.counts[v]),
      keep,
    )
    for v in range(len(views.counts))
  ]


def evaluate_views(
  method: Method,
  state: State,
  split: Any,
  views: Sequence[View],
  *,
  metric: metrics.Metric,
  batch_size: int = 512,
  predict: Callable[..., Outputs] | None = None,
) -> list[dict[str, dict[str, float]]]:
  """As `evaluate`, for every view of the split (subsets of modalities, missing tables), in one compiled call.

  NaN where no row is judged. Views that are equal are scored once.

  Args:
    method, state, split, metric, batch_size, predict: as in `evaluate`.
    views: which modalities the rows have, and which rows are judged.
  """
  stacked, place = stack_views(split, views, batch_size)
  found = scan_views(predict or method.predict, metric, seen(state), stacked)
  plain = [{h: {k: float(v) for k, v in s.items()} for h, s in each.items()} for each in found]
  return [plain[i] for i in place]


def modality_values(
  method: Method,
  state: State,
  split: Any,
  *,
  metric: metrics.Metric,
  name: str = "accuracy",
  batch_size: int = 512,
) -> dict[str, float]:
  """Shapley values {m: phi_m} of the modalities in the fused score, from all 2^M subsets at once.

  v(S) is the score with the modalities outside S absent; v(()) that of the prediction from nothing.
  The values add up to v(all) - v(()). `metrics.imbalance` is their range.

  Args:
    method, state, split, metric, batch_size: as in `evaluate`.
    name: the score of the fused head, default "accuracy".
  """
  scored = evaluate_subsets(
    method,
    state,
    split,
    metric=metric,
    batch_size=batch_size,
    subsets=masks.every_subset(sorted(split.mask)),
  )
  return metrics.shapley({subset: heads[FUSED][name] for subset, heads in scored})


@functools.partial(jax.jit, static_argnames=("predict",))
def _predict_jit(predict, state, inputs, mask):
  return predict(state, inputs, mask)


def predict_split(method: Method, state: State, split: Any, *, batch_size: int = 512) -> Outputs:
  """All outputs of a split, collected on the host in row order: logits [N, C] and so on.

  Args:
    method, state: what predicts.
    split: `data.Split`, or another source.
    batch_size: rows per compiled call, default 512.
  """
  batches = padded_batches(split, batch_size)
  rows = len(split)
  parts = []
  for i in range(batches.weight.shape[0]):
    inputs, mask = jax.tree.map(lambda x, i=i: x[i], (batches.inputs, batches.mask))
    parts.append(jax.device_get(_predict_jit(method.predict, seen(state), inputs, mask)))
  return jax.tree.map(lambda *x: np.concatenate(x)[:rows], *parts)
