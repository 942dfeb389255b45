"""The door for segmentation: labels [B, H, W], and modalities that are maps of the same height and width."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfuse.data import _plain
from mmfuse.data._error import DataError
from mmfuse.names import SEGMENTATION, VOID


def looks_dense(x: np.ndarray) -> bool:
  """Whether labels are whole numbers [B, H, W]: what no other task has."""
  return x.ndim == 3 and x.dtype.kind in "biu"


def read_classes(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  """(int32 [B, H, W] in 0..K-1 or VOID, names of the classes): values but -1, sorted and numbered.

  Args:
    x: [B, H, W] or [B, H, W, 1], whole numbers; -1 is void.

  Raises:
    DataError: another rank, what is no whole number, a negative class, fewer than two classes.
  """
  if x.ndim == 4 and x.shape[-1] == 1:
    x = x[..., 0]
  if x.ndim != 3 or x.dtype.kind not in "biuf":
    raise DataError(
      f"labels of a segmentation must be whole numbers [B, H, W], got {x.dtype} {list(x.shape)}"
    )
  if x.dtype.kind == "f" and (x != np.floor(x)).any():
    row = int(np.argmax((x != np.floor(x)).reshape(len(x), -1).any(1)))
    raise DataError(f"labels of a segmentation must be whole numbers; row {row} has others")
  x = x.astype(np.int64)
  values, codes = np.unique(x, return_inverse=True)
  if values[0] < VOID:
    raise DataError(
      f"labels of a segmentation are classes from 0 on, or {VOID} where a place does not count; "
      f"got {values[0]}"
    )
  void = int(values[0] == VOID)
  names = tuple(str(v) for v in values[void:])
  if len(names) < 2:
    said = f"one class only ({names[0]!r})" if names else "void places only"
    raise DataError(f"label has {said}, expected at least two")
  return (codes.reshape(x.shape) - void).astype(np.int32), names


def dense_notes(name: str, names: tuple[str, ...], guessed: bool) -> list[str]:
  """What was read of a label that no task was said of."""
  if not guessed:
    return []
  few = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
  return [
    f"{name} holds whole numbers [B, H, W]: read as segmentation with {len(names)} classes ({few}); "
    f"{VOID} is void"
  ]


def as_maps(arrays: Mapping[str, Any], names: Iterable[str], label: Any) -> dict[str, Any]:
  """`arrays` with every modality [B, H, W] as [B, H, W, 1].

  Args:
    arrays: {name: array}.
    names: of the modalities.
    label: [B, H, W] or [B, H, W, 1], which says H and W; None asks for one size of all.

  Raises:
    DataError: a modality that is no map, or of another height or width.
  """
  found = dict(arrays)
  size = None if label is None else np.shape(label)[1:3]
  whose = "the label"
  for m in sorted(names):
    x, gone = _plain.unmask(m, arrays[m])
    if x.ndim not in (3, 4):
      raise DataError(
        f"{SEGMENTATION} reads maps [B, H, W] or [B, H, W, C], modality {m!r} is {list(x.shape)}; "
        f"leave it out (--ignore {m}), or spread it over the map"
      )
    if size is None:
      size, whose = x.shape[1:3], repr(m)
    if x.shape[1:3] != size:
      raise DataError(
        f"{SEGMENTATION} needs one height and width of all, modality {m!r} is "
        f"{x.shape[1]} x {x.shape[2]}, {whose} is {size[0]} x {size[1]}"
      )
    if x.ndim == 3:
      kept = x if gone is None else np.ma.MaskedArray(x, gone)
      found[m] = kept[..., None]
  return found


def check_whole(inputs: Mapping[str, Any]) -> None:
  """Raises DataError for a map that was read as ending early: NaN, or a length, where it is present."""
  for m, x in sorted(inputs.items()):
    if not hasattr(x, "dtype"):
      raise DataError(
        f"{SEGMENTATION} reads whole maps, and some of {m!r} are NaN, masked or have a length where "
        f"they are present; pass mask_{m} with False there, or fill them in"
      )
    if x.dtype.kind != "f":
      raise DataError(f"{SEGMENTATION} reads maps of numbers, modality {m!r} holds tokens")
