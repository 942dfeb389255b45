"""Inputs as columns of a linear model: flattened, standardised by training rows, 0 where absent."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmfuse import core

_CELLS = 1 << 23  # of a float64 temporary, so that a large set is never copied whole
_CONSTANT = 1e-6  # spread over mean below float32 resolution: rounding, not signal


class Columns(NamedTuple):
  """How rows become columns; everything in it was read off the training rows."""

  modalities: tuple[str, ...]  # side by side, in this order
  vocabulary: dict[str, np.ndarray]  # {modality of tokens: those of training, ascending}
  gaps: tuple[str, ...]  # modalities absent from some training row: they have an indicator
  mean: np.ndarray  # float64 [D], over the rows in which the modality is present
  scale: np.ndarray  # float64 [D], 1 / standard deviation; 0 where training is constant


def _values(x: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Values [n, ...] of `rows`, and which of them count: all but those after a sequence's end."""
  if not isinstance(x, core.Sequence):
    values = np.asarray(x)[rows]
    return values, np.broadcast_to(True, values.shape)
  values, length = np.asarray(x.values)[rows], np.asarray(x.length)[rows]
  steps = np.arange(values.shape[1]) < length[:, None]
  return values, np.broadcast_to(
    steps.reshape(*steps.shape, *[1] * (values.ndim - 2)), values.shape
  )


def _counts(tokens: np.ndarray, valid: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
  """How often each token of the vocabulary occurs in each row, float32 [n, V].

  Others count nowhere: a column of unknown tokens would be constant in training.
  """
  size = len(vocabulary)
  if not size:
    return np.zeros((len(tokens), 0), np.float32)
  at = np.minimum(np.searchsorted(vocabulary, tokens), size - 1)
  known = valid & (vocabulary[at] == tokens)
  cell = at + size * np.arange(len(tokens))[:, None]
  counts = np.bincount(cell[known], minlength=size * len(tokens))
  return counts.reshape(len(tokens), size).astype(np.float32)


def _raw(x: Any, rows: np.ndarray, vocabulary: np.ndarray | None) -> np.ndarray:
  """A modality's columns before standardisation, float32 [n, D]: zeros after a sequence's end."""
  values, valid = (v.reshape(len(rows), -1) for v in _values(x, rows))
  if vocabulary is not None:
    out = _counts(values, valid, vocabulary)
  else:
    out = np.where(valid, values, np.zeros((), values.dtype)).astype(np.float32)
  if not isinstance(x, core.Sequence):
    return out
  return np.hstack([out, np.asarray(x.length)[rows, None].astype(np.float32)])


def vocabulary_of(x: Any, rows: np.ndarray) -> np.ndarray | None:
  """The tokens in `rows` of an integer modality, ascending; negative ones are padding."""
  values, valid = _values(x, rows)
  if values.dtype.kind not in "iu":
    return None
  return np.unique(values[valid & (values >= 0)])


def width(x: Any, vocabulary: np.ndarray | None) -> int:
  """Columns of a modality, without its indicator."""
  values = x.values if isinstance(x, core.Sequence) else x
  columns = int(np.prod(values.shape[1:])) if vocabulary is None else len(vocabulary)
  return columns + isinstance(x, core.Sequence)


def _chunks(rows: int, columns: int) -> list[slice]:
  step = max(1, _CELLS // max(1, columns))
  return [slice(i, i + step) for i in range(0, rows, step)]


def moments(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Weighted mean and standard deviation [D] of float32 [n, D], in float64, two passes."""
  chunks, total = _chunks(*x.shape), weight.sum()
  mean = sum(weight[c] @ x[c].astype(np.float64) for c in chunks) / total
  variance = sum(weight[c] @ np.square(x[c] - mean) for c in chunks) / total
  return mean, np.sqrt(variance)


def _blocks(
  modalities: tuple[str, ...],
  vocabulary: Mapping[str, np.ndarray],
  gaps: tuple[str, ...],
  inputs: Mapping[str, Any],
  mask: Mapping[str, np.ndarray],
  rows: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(columns [n, D_m], which rows have them): a block per modality, then the indicators."""
  for m in modalities:
    yield _raw(inputs[m], rows, vocabulary.get(m)), mask[m][rows]
  for m in gaps:
    yield mask[m][rows, None].astype(np.float32), np.ones(len(rows), bool)


def _standard(
  x: np.ndarray, present: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
  """(x - mean) scale, and 0, the mean, in rows that are absent."""
  out = np.empty(x.shape, np.float32)
  for c in _chunks(len(x), x.shape[1]):
    out[c] = (x[c] - mean) * scale
  out[~present] = 0
  return out


def fit(
  inputs: Mapping[str, Any],
  mask: Mapping[str, np.ndarray],
  modalities: tuple[str, ...],
  rows: np.ndarray,
  weight: np.ndarray,
) -> tuple[Columns, np.ndarray]:
  """Columns from the training rows, and those rows in them [n, D].

  A modality that no row has gives no column.

  Args:
    inputs: {modality: [N, ...]} of the training split.
    mask: {modality: bool [N]}, True = present.
    modalities: side by side in this order.
    rows: int [n], those to read.
    weight: [n], of each of them.
  """
  seen = tuple(m for m in modalities if mask[m][rows].any())
  gaps = tuple(m for m in seen if not mask[m][rows].all())
  words = {m: vocabulary_of(inputs[m], rows[mask[m][rows]]) for m in seen}
  vocabulary = {m: v for m, v in words.items() if v is not None}
  blocks, means, scales = [np.zeros((len(rows), 0), np.float32)], [np.zeros(0)], [np.zeros(0)]
  for x, present in _blocks(seen, vocabulary, gaps, inputs, mask, rows):
    mean, std = moments(x[present], weight[present])
    flat = std <= _CONSTANT * np.abs(mean)
    scale = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, std))
    blocks.append(_standard(x, present, mean, scale))
    means, scales = [*means, mean], [*scales, scale]
  columns = Columns(seen, vocabulary, gaps, np.concatenate(means), np.concatenate(scales))
  return columns, np.hstack(blocks)


def apply(
  columns: Columns, inputs: Mapping[str, Any], mask: Mapping[str, np.ndarray], rows: np.ndarray
) -> np.ndarray:
  """The columns float32 [n, D] of `rows` of any split."""
  blocks, start = [np.zeros((len(rows), 0), np.float32)], 0
  for x, present in _blocks(*columns[:3], inputs, mask, rows):
    end = start + x.shape[1]
    blocks.append(_standard(x, present, columns.mean[start:end], columns.scale[start:end]))
    start = end
  return np.hstack(blocks)


def scores(
  columns: Columns,
  inputs: Mapping[str, Any],
  mask: Mapping[str, np.ndarray],
  rows: np.ndarray,
  weights: np.ndarray,
) -> np.ndarray:
  """Columns of `rows` times `weights`, some rows at a time: float64 [n, K].

  Args:
    columns: how rows become columns.
    inputs: {modality: [N, ...]} of any split.
    mask: {modality: bool [N]}, True = present.
    rows: int [n], of that split.
    weights: [D, K].
  """
  parts = [
    apply(columns, inputs, mask, rows[c]) @ weights for c in _chunks(len(rows), len(weights))
  ]
  return np.concatenate([np.zeros((0, weights.shape[1])), *parts])
