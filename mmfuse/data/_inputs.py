"""The door for modalities and masks: whatever a user has becomes float32, tokens and bool."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfuse.data._error import DataError, closest

MASK = "mask_"  # prefix of the array that says where a modality is present
RESERVED = ("label", "split", "group")  # arrays with a meaning of their own
_TAKEN = (*RESERVED, "heads", "fused", "shared")  # `tree.RESERVED`: names inside the parameters


def as_array(name: str, value: Any) -> np.ndarray:
  """`value` as a numpy array of at least one axis, or a sentence about what it is instead."""
  if isinstance(value, list | tuple):
    try:
      value = np.asarray(value)
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
  return x


def modality_names(names: Iterable[str], label: str = "label") -> tuple[str, ...]:
  """Sorted names of the modalities: all but the reserved names, `label` and `mask_<modality>`."""
  found = [n for n in names if n not in (label, *RESERVED[1:]) and not n.startswith(MASK)]
  for n in found:
    if n in _TAKEN or not n or "/" in n:
      raise DataError(
        f"a modality cannot be called {n!r}: the name must not be empty, contain '/' or be one of "
        f"{', '.join(_TAKEN)}"
      )
  return tuple(sorted(found))


def is_embedding(spec: Any) -> bool:
  """Whether an encoder choice, a spec string or a module, reads integer tokens."""
  return spec == "embedding" or type(spec).__name__ == "Embedding"


def _check_rows(name: str, x: np.ndarray, rows: int, of: str) -> None:
  if len(x) != rows:
    raise DataError(f"array {name!r} has {len(x)} rows, {of} has {rows}")


def _mask(name: str, value: Any, rows: int, of: str) -> np.ndarray:
  x = as_array(MASK + name, value)
  _check_rows(MASK + name, x, rows, of)
  expected = f"{MASK + name} must be bool [{rows}] or integers 0 and 1 (True = present)"
  if x.ndim != 1 or x.dtype.kind not in "biu":
    raise DataError(f"{expected}, got {x.dtype} {list(x.shape)}")
  other = np.setdiff1d(x.astype(np.int64), (0, 1))
  if other.size:
    raise DataError(f"{expected}, got the value {other[0]}")
  return x.astype(bool)


def _tokens(name: str, x: np.ndarray, present: np.ndarray) -> np.ndarray:
  if x.dtype.kind not in "iu" or x.ndim > 2:
    raise DataError(
      f"modality {name!r} is {x.dtype} {list(x.shape)}, an embedding reads integers [B] or [B, L]"
    )
  flat = x.reshape(len(x), -1)
  wrong = present & ((flat < 0) | (flat > np.iinfo(np.int32).max)).any(1)
  if wrong.any():
    row = int(np.argmax(wrong))
    token = flat[row].min() if flat[row].min() < 0 else flat[row].max()
    raise DataError(
      f"modality {name!r} has the token {token} at row {row}, "
      "an embedding reads integers from 0 to 2147483647"
    )
  return np.where(present[:, None], flat, 0).astype(np.int32)


def _numbers(name: str, x: np.ndarray, present: np.ndarray) -> np.ndarray:
  if x.dtype.kind in "US":
    raise DataError(
      f"modality {name!r} holds strings, expected numbers; number the words or categories and "
      f"choose an embedding (--encoder {name}=embedding, or encoders={{{name!r}: 'embedding'}})"
    )
  if x.dtype.kind not in "biuf":
    raise DataError(f"modality {name!r} has dtype {x.dtype}, expected numbers or booleans")
  image = x.dtype == np.uint8 and x.ndim >= 3
  if image and x.ndim == 3:
    x = x[..., None]  # grey images [B, H, W]
  if x.ndim == 1:
    x = x[:, None]
  if not present.all():
    x = np.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, np.zeros((), x.dtype))
  with np.errstate(over="ignore"):  # what float32 cannot hold is reported below, with its row
    out = x.astype(np.float32)
  finite = np.isfinite(out).reshape(len(out), -1).all(1)
  if not finite.all():
    raise DataError(
      f"modality {name!r} has NaN or infinite float32 values at row {int(np.argmin(finite))} "
      f"({int((~finite).sum())} rows in all), where its mask says present; "
      f"pass {MASK + name} with False there, or fill them in"
    )
  return out / np.float32(255) if image else out


def read_inputs(
  arrays: Mapping[str, Any],
  names: Iterable[str],
  *,
  rows: int | None = None,
  encoders: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Modalities `names` of `arrays`, and their masks, in the form every model reads.

  `[B]` becomes `[B, 1]`; numbers and booleans become float32; uint8 of rank 3 or more is an image
  and becomes `x / 255` (`[B, H, W]` gets a channel axis); integers stay numbers unless the encoder
  is an embedding, then int32 `[B, L]`. Absent rows become 0 and are never looked at.
  A mask is an array `mask_<modality>`, bool `[B]`; without one every row is present.

  Args:
    arrays: may hold more than `names`.
    names: the modalities wanted.
    rows: number of rows of the label; default: of the first modality.
    encoders: {modality: spec or module}; `"embedding"` asks for integers.

  Returns:
    ({modality: float32 `[B, ...]` or int32 `[B, L]`}, {modality: bool `[B]`}).

  Raises:
    DataError: rows that differ in number, strings, objects, a mask of the wrong dtype or of an
      unknown modality, NaN or infinity where the mask says present.
  """
  names, encoders = tuple(sorted(names)), encoders or {}
  given = {MASK + m: m for m in (n.removeprefix(MASK) for n in arrays if n.startswith(MASK))}
  given |= {f"the encoder for {m!r}": m for m in encoders}
  for what, of_modality in given.items():
    if of_modality not in names:
      raise DataError(f"{what} belongs to no modality{closest(of_modality, names)}")
  inputs, mask = {}, {}
  of = "'label'"
  for m in names:
    if m not in arrays:
      raise DataError(f"modality {m!r} is not among the arrays{closest(m, arrays)}")
    x = as_array(m, arrays[m])
    if rows is None:
      rows, of = len(x), repr(m)
    _check_rows(m, x, rows, of)
    if x.size == 0:
      raise DataError(f"modality {m!r} has shape {list(x.shape)}: an axis is empty")
    present = arrays.get(MASK + m)
    mask[m] = np.ones(rows, bool) if present is None else _mask(m, present, rows, of)
    read = _tokens if is_embedding(encoders.get(m)) else _numbers
    inputs[m] = read(m, x, mask[m])
  return inputs, mask
