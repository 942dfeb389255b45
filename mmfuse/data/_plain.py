"""Anything array-like as a plain numpy array: no objects, no hidden values, no exotic floats."""

from typing import Any

import numpy as np

from mmfuse.data._error import DataError


def as_array(name: str, value: Any) -> np.ndarray:
  """`value` as a numpy array of at least one axis, or a sentence about what it is instead."""
  x, gone = unmask(name, value)
  if gone is not None:
    row = int(np.argmax(gone.reshape(len(gone), -1).any(1)))
    raise DataError(f"array {name!r} is masked at row {row}, expected a value in every row")
  return x


def unmask(name: str, value: Any) -> tuple[np.ndarray, np.ndarray | None]:
  """(`value` as in `as_array`, bool of the same shape where a numpy masked array hides it or None)."""
  if isinstance(value, list | tuple):
    masked = any(isinstance(v, np.ma.MaskedArray) for v in value)
    try:
      value = np.ma.stack(value) if masked else np.asarray(value)
    except ValueError as error:
      raise DataError(f"array {name!r} has rows of different shapes: {error}") from error
  x = np.asarray(value)
  if x.dtype.kind == "O":
    raise DataError(
      f"array {name!r} holds Python objects, expected numbers or strings; "
      "convert it first, e.g. with np.asarray(values, dtype=np.float32) or dtype=str"
    )
  if x.ndim == 0:
    raise DataError(f"array {name!r} is a single value, expected one row per example")
  if x.dtype.names:
    raise DataError(
      f"array {name!r} holds records with the fields {', '.join(x.dtype.names)}, "
      "expected numbers or strings; save each field as an array"
    )
  gone = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else None
  if x.dtype.kind == "V" and x.dtype.type is not np.void:
    x = x.astype(np.float32)  # ml_dtypes: bfloat16, float8, int4
  elif _saved_bfloat16(x):
    x = (x.view("<u2").reshape(x.shape).astype(np.uint32) << 16).view(np.float32)
  return x, gone if gone is not None and gone.any() else None


def _saved_bfloat16(x: Any) -> bool:
  """numpy writes bfloat16 to a file as two raw bytes; nothing else that it writes looks so."""
  return isinstance(x, np.ndarray) and x.dtype == np.dtype("V2")


def notes(name: str, value: Any) -> list[str]:
  """A note where the kind of number had to be guessed."""
  return [f"{name}: raw two-byte values read as bfloat16"] if _saved_bfloat16(value) else []
