"""The door for modalities and masks: whatever a user has becomes numbers, tokens and bool."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmfuse.data import _plain, _sequences
from mmfuse.data._error import DataError, closest
from mmfuse.data._plain import as_array
from mmfuse.data._sequences import LENGTH

MASK = "mask_"  # prefix of the array that says where a modality is present
EXTRA, TRUTH = "extra_", "truth_"  # prefixes of what is no modality: for steps, for scores alone
BESIDE = (MASK, LENGTH, EXTRA, TRUTH)
RESERVED = ("label", "split", "group", "weight")  # arrays with a meaning of their own
_TAKEN = (
  *RESERVED[:3],
  "heads",
  "fused",
  "decoders",
  "shared",
)  # `tree.RESERVED`: names inside the parameters
_LARGEST = 1e150  # of a float64: the squares of the standard deviation must be finite
_EXACT = 2**24  # integers up to here are float32 numbers


def candidates(names: Iterable[str], label: str = "label") -> list[str]:
  """Names of all arrays but `label`, the reserved ones and those that begin as `BESIDE`; sorted."""
  meant = (label, *RESERVED[1:])
  return sorted(n for n in names if n not in meant and not n.startswith(BESIDE))


def modality_names(names: Iterable[str], label: str = "label") -> tuple[str, ...]:
  """Sorted names of the modalities, each one that a model can take."""
  found = candidates(names, label)
  for n in found:
    if n in _TAKEN or not n or "/" in n:
      raise DataError(
        f"a modality cannot be called {n!r}: the name must not be empty, contain '/' or be one of "
        f"{', '.join(_TAKEN)}"
      )
  return tuple(found)


def is_embedding(spec: Any) -> bool:
  """Whether an encoder choice, a spec string or a module, reads integer tokens."""
  return spec == "embedding" or type(spec).__name__ == "Embedding"


def check_rows(name: str, x: np.ndarray, rows: int, of: str) -> None:
  """Raises DataError unless `x` has as many rows as what `of` names."""
  if len(x) != rows:
    raise DataError(f"array {name!r} has {len(x)} rows, {of} has {rows}")


def read_mask(name: str, value: Any, rows: int, of: str, means: str = "present") -> np.ndarray:
  """The array `mask_<name>` as bool `[rows]`."""
  x = as_array(MASK + name, value)
  check_rows(MASK + name, x, rows, of)
  expected = f"{MASK + name} must be bool [{rows}] or integers 0 and 1 (True = {means})"
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


def _check_numeric(name: str, x: np.ndarray) -> None:
  if x.dtype.kind in "US":
    raise DataError(
      f"modality {name!r} holds strings, expected numbers; number the words or categories and "
      f"choose an embedding (--encoder {name}=embedding, or encoders={{{name!r}: 'embedding'}}), "
      f"or leave it out (--ignore {name})"
    )
  if x.dtype.kind not in "biuf":
    raise DataError(f"modality {name!r} has dtype {x.dtype}, expected numbers or booleans")


def _numbers(name: str, x: np.ndarray, keep: np.ndarray) -> np.ndarray:
  """Floats of `x`, 0 outside `keep` [B] or [B, T]: float64 where float32 would lose something."""
  image = x.dtype == np.uint8 and x.ndim >= 3 and not (x.ndim == 3 and keep.ndim == 2)
  if image and x.ndim == 3:
    x = x[..., None]  # grey images [B, H, W]
  if x.ndim == 1:
    x = x[:, None]
  x = _sequences.cleared(x, keep)
  if x.dtype.kind == "f":
    wide = x.dtype.itemsize > 4
  else:
    wide = x.dtype.itemsize > 2 and max(int(x.max()), -int(x.min())) > _EXACT
  with np.errstate(over="ignore"):  # a long double beyond float64 is reported below, with its row
    out: np.ndarray = x.astype(np.float64 if wide else np.float32)
  fine = np.abs(out) <= _LARGEST if wide else np.isfinite(out)
  fine = fine.reshape(len(out), -1).all(1)
  if not fine.all():
    raise DataError(
      f"modality {name!r} has NaN or infinite values, or values above {_LARGEST:g}, at row "
      f"{int(np.argmin(fine))} ({int((~fine).sum())} rows in all), where its mask says present; "
      f"pass {MASK + name} with False there, or fill them in"
    )
  return np.divide(out, np.float32(255)) if image else out


def _end(
  name: str, x: np.ndarray, gone: np.ndarray | None, given: Any, present: np.ndarray
) -> tuple[np.ndarray | None, str]:
  """(int [B] steps that count or None for a modality that never ends early, what said so)."""
  if given is not None:
    return _sequences.check_length(name, as_array(LENGTH + name, given), x, present), ""
  what = "NaN" if gone is None else "masked steps"
  if x.ndim >= 3 and x.dtype.kind == "f":
    gone = np.isnan(x) if gone is None else gone | np.isnan(x)
  if x.ndim < 3 or gone is None:
    return None, ""
  length = _sequences.trailing(gone)
  if not (present & (length < x.shape[1])).any():
    return None, ""
  _sequences.check_nonempty(name, length, present, f"modality {name!r} has nothing but {what}")
  return np.where(present, length, 0), what


def _as_trained(
  name: str, length: np.ndarray | None, sequential: bool | None, steps: int, present: np.ndarray
) -> np.ndarray | None:
  """`length`, given where the trained model reads a sequence (`sequential`) and only there."""
  if sequential is None or (length is None) != sequential:
    return length
  if length is None:
    return np.where(present, steps, 0)
  short = present & (length < steps)
  if short.any():
    row = int(np.argmax(short))
    raise DataError(
      f"modality {name!r} ends after {length[row]} of {steps} steps at row {row}, "
      "in the training data no row ended early"
    )
  return None


def _check_unmasked(name: str, gone: np.ndarray, keep: np.ndarray) -> None:
  """Raises DataError where a masked array hides single values of what is kept."""
  flat = gone.reshape(*keep.shape, -1).any(-1) & keep
  rows = flat.reshape(len(flat), -1).any(1)
  if rows.any():
    raise DataError(
      f"modality {name!r} is a masked array that hides part of row {int(np.argmax(rows))} "
      f"({int(rows.sum())} rows in all), expected whole rows, or the last steps of a sequence "
      f"[B, T, ...]; fill the values in, or mask those rows as a whole"
    )


class _Read(NamedTuple):
  """A modality as read."""

  x: Any  # [B, ...] or a sequence
  present: np.ndarray  # bool [B]
  notes: list[str]


def _modality(
  name: str, arrays: Mapping[str, Any], rows: int, of: str, spec: Any, sequential: bool | None
) -> _Read:
  x, gone = _plain.unmask(name, arrays[name])
  notes, tokens = _plain.notes(name, arrays[name]), is_embedding(spec)
  check_rows(name, x, rows, of)
  if x.size == 0:
    raise DataError(f"modality {name!r} has shape {list(x.shape)}: an axis is empty")
  mask = arrays.get(MASK + name)
  present = np.ones(rows, bool) if mask is None else read_mask(name, mask, rows, of)
  if gone is not None:
    hidden = present & gone.reshape(rows, -1).all(1)
    present &= ~hidden
    if hidden.any():
      notes.append(f"{name}: {hidden.sum()} of {rows} rows are masked and read as absent")
  if not tokens:
    _check_numeric(name, x)
  length, what = _end(name, x, gone, arrays.get(LENGTH + name), present)
  if what and length is not None:
    early = f"{(present & (length < x.shape[1])).sum()} of {present.sum()} sequences"
    notes.append(f"{name}: trailing {what} read as the end of {early}")
  if x.ndim >= 3:
    length = _as_trained(name, length, sequential, x.shape[1], present)
  keep = present if length is None else _sequences.valid_steps(length, x.shape[1])
  if gone is not None:
    _check_unmasked(name, gone, keep)
  notes += _leading_channels(name, x)
  out = _tokens(name, x, keep) if tokens else _numbers(name, x, keep)
  return _Read(out if length is None else _sequences.sequence(out, length), present, notes)


def _leading_channels(name: str, x: np.ndarray) -> list[str]:
  """A note on what looks like [B, C, H, W] or [B, T, C, H, W]; the last axis is read as channels."""
  if x.ndim not in (4, 5) or x.shape[-3] not in (1, 3) or min(x.shape[-2:]) < 8:
    return []
  axis = x.ndim - 3
  order = (*range(axis), axis + 1, axis + 2, axis)
  several = "three leading channels are" if x.shape[axis] == 3 else "one leading channel is"
  return [
    f"{name} {list(x.shape)}: {several} read as height and the last axis as "
    f"{x.shape[-1]} channels; transpose{order} puts channels last"
  ]


def _check_owners(
  arrays: Mapping[str, Any], names: Collection[str], encoders: Mapping[str, Any]
) -> None:
  """Raises DataError for a mask, length or encoder of no modality."""
  given = {f"the encoder for {m!r}": m for m in encoders}
  for prefix in (MASK, LENGTH):
    given |= {n: n.removeprefix(prefix) for n in arrays if n.startswith(prefix)}
  for what, of_modality in given.items():
    if of_modality not in names:
      raise DataError(f"{what} belongs to no modality{closest(of_modality, names)}")


def read_noted(
  arrays: Mapping[str, Any],
  names: Iterable[str],
  *,
  rows: int | None = None,
  encoders: Mapping[str, Any] | None = None,
  lengths: Collection[str] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
  """As `read_inputs`, and the notes on what was read in a way that the user may not expect."""
  names, encoders = tuple(sorted(names)), encoders or {}
  _check_owners(arrays, names, encoders)
  inputs, mask, notes = {}, {}, []
  of = "'label'"
  for m in names:
    if m not in arrays:
      raise DataError(f"modality {m!r} is not among the arrays{closest(m, arrays)}")
    if rows is None:
      rows, of = len(_plain.unmask(m, arrays[m])[0]), repr(m)
    sequential = None if lengths is None else m in lengths
    read = _modality(m, arrays, rows, of, encoders.get(m), sequential)
    inputs[m], mask[m] = read.x, read.present
    notes += read.notes
  return inputs, mask, notes


def read_inputs(
  arrays: Mapping[str, Any],
  names: Iterable[str],
  *,
  rows: int | None = None,
  encoders: Mapping[str, Any] | None = None,
  lengths: Collection[str] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Modalities `names` of `arrays`, and their masks, in the form every model reads.

  `[B]` becomes `[B, 1]`; numbers and booleans become float32, or float64 where that would lose
  something before standardisation (`Scaler.apply` casts after it); uint8 of rank 3 or more is an
  image and becomes `x / 255` (`[B, H, W]` gets a channel axis); integers stay numbers unless the
  encoder is an embedding, then int32 `[B, L]`. Absent rows become 0 and are never looked at.
  A mask is an array `mask_<modality>`, bool `[B]`; rows that a numpy masked array hides are absent
  too; else every row is present.

  A modality `[B, T, ...]` whose rows end early becomes `core.Sequence(values, length int32 [B])`:
  where there is an array `length_<modality>`, or where steps of nothing but NaN, or of masked
  values, last to the end of a row. What stands after the end becomes 0 and is never looked at.

  Args:
    arrays: may hold more than `names`.
    names: the modalities wanted.
    rows: number of rows of the label; default: of the first modality.
    encoders: {modality: spec or module}; `"embedding"` asks for integers.
    lengths: the modalities that are sequences where the model was trained: these are made
      sequences, whether or not a row ends early, and no other may be one. None: as the arrays say.

  Returns:
    ({modality: float32 or float64 `[B, ...]`, int32 `[B, L]` or a sequence}, {modality: bool `[B]`}).

  Raises:
    DataError: rows that differ in number, strings, objects, a mask or length of the wrong dtype or
      of an unknown modality, NaN or infinity where the mask says present.
  """
  arrays = {n: x for n, x in arrays.items() if n != MASK + RESERVED[0]}
  return read_noted(arrays, names, rows=rows, encoders=encoders, lengths=lengths)[:2]
