"""Modalities whose rows end early: where each row ends, and arrays and sequences handled alike."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmfuse.data._error import DataError

LENGTH = "length_"  # prefix of the array that says how many steps of a row count


def sequence(values: np.ndarray, length: np.ndarray) -> Any:
  """`core.Sequence(values [B, T, ...], length int32 [B])`."""
  from mmfuse.core import Sequence  # brings jax, which a set of plain arrays does not wait for

  return Sequence(values, length.astype(np.int32))


def is_sequence(x: Any) -> bool:
  """Whether a modality is a `core.Sequence`, not an array."""
  return isinstance(x, tuple)


def values_of(x: Any) -> np.ndarray:
  """The numbers of an array or sequence, [B, ...]."""
  return x.values if is_sequence(x) else x


def take(x: Any, index: np.ndarray) -> Any:
  """Rows `index` of an array or sequence."""
  return sequence(x.values[index], x.length[index]) if is_sequence(x) else x[index]


def valid_steps(length: np.ndarray, steps: int) -> np.ndarray:
  """bool [B, T]: the steps within the length."""
  return np.arange(steps) < length[:, None]


def cleared(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
  """`values` where `keep` [B] or [B, T], else 0; the rest is never read."""
  if keep.all():
    return values
  keep = keep.reshape(keep.shape + (1,) * (values.ndim - keep.ndim))
  return np.where(keep, values, np.zeros((), values.dtype))


def blocks(x: Any, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
  """Rows `rows`, `size` at a time: [n, ..., C] of an array, the valid steps of a sequence."""
  for i in range(0, len(rows), size):
    part = take(x, rows[i : i + size])
    if is_sequence(part):
      part = part.values[valid_steps(part.length, part.values.shape[1])]
    yield part


def trailing(gone: np.ndarray) -> np.ndarray:
  """int [B]: steps of each row before those that are gone [B, T, ...], in all values, to its end."""
  step = np.asarray(gone.reshape(*gone.shape[:2], -1).all(-1))
  return step.shape[1] - np.logical_and.accumulate(step[:, ::-1], axis=1).sum(1)


def check_length(name: str, x: np.ndarray, of: np.ndarray, present: np.ndarray) -> np.ndarray:
  """The array `length_<name>`, int [B] in 1..T where present; 0 elsewhere.

  Raises:
    DataError: another shape or type, a modality without steps, a length outside 1..T.
  """
  if of.ndim < 3:
    raise DataError(
      f"{LENGTH + name} gives lengths, but {name!r} is {list(of.shape)}: only a modality "
      "[B, T, ...] of rank 3 or more has steps that can end early; tokens [B, L] mark the end "
      "with a token of its own"
    )
  steps = of.shape[1]
  expected = (
    f"{LENGTH + name} must be integers [{len(of)}] from 1 to {steps}, the steps of {name!r}"
  )
  if x.ndim != 1 or len(x) != len(of) or x.dtype.kind not in "iu":
    raise DataError(f"{expected}, got {x.dtype} {list(x.shape)}")
  wrong = present & ((x < 0) | (x > steps))
  if wrong.any():
    row = int(np.argmax(wrong))
    raise DataError(f"{expected}, got {x[row]} at row {row}")
  length = np.where(present, x, 0).astype(np.int64)
  check_nonempty(name, length, present, f"{LENGTH + name} is 0")
  return length


def check_nonempty(name: str, length: np.ndarray, present: np.ndarray, what: str) -> None:
  """Raises DataError for a present row of no step."""
  empty = present & (length == 0)
  if empty.any():
    raise DataError(
      f"{what} at row {int(np.argmax(empty))} ({int(empty.sum())} rows in all), where {name!r} is "
      f"said to be present; pass mask_{name} with False where there is no step"
    )
