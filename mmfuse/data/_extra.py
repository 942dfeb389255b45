"""Arrays beside the modalities: `extra_<name>` travels with the rows, `truth_<name>` is for scores only."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse.data._error import DataError
from mmfuse.data._inputs import EXTRA, TRUTH, check_rows
from mmfuse.data._plain import as_array


def read_extras(
  arrays: Mapping[str, Any], rows: int, of: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """({name: [N, ...]} of `extra_<name>`, the same of `truth_<name>`), as float32, int32 or bool.

  Args:
    arrays: all arrays by name; others are not looked at.
    rows: N.
    of: what has so many rows, for messages.

  Raises:
    DataError: strings, another number of rows, integers beyond int32, or NaN in an `extra_`, which a
      step reads. In a `truth_` NaN may say that nothing is known.
  """
  found: dict[str, dict[str, np.ndarray]] = {EXTRA: {}, TRUTH: {}}
  for name in sorted(arrays):
    prefix = next((p for p in found if name.startswith(p)), None)
    if prefix is None:
      continue
    if name == prefix:
      raise DataError(f"an array is called {name!r}, expected a name after {prefix!r}")
    x = as_array(name, arrays[name])
    check_rows(name, x, rows, of)
    found[prefix][name.removeprefix(prefix)] = _numbers(name, x, finite=prefix == EXTRA)
  return found[EXTRA], found[TRUTH]


def _numbers(name: str, x: np.ndarray, finite: bool) -> np.ndarray:
  if x.dtype.kind == "b":
    return x
  if x.dtype.kind in "iu":
    limit = np.iinfo(np.int32)
    if x.size and (x.min() < limit.min or x.max() > limit.max):
      raise DataError(f"array {name!r} has integers beyond int32: {x.min()}..{x.max()}")
    return x.astype(np.int32)
  if x.dtype.kind != "f":
    raise DataError(f"array {name!r} has dtype {x.dtype}, expected numbers or booleans")
  out = x.astype(np.float32)
  wrong = ~np.isfinite(out).reshape(len(out), -1).all(1)
  if finite and wrong.any():
    raise DataError(f"array {name!r} is NaN or infinite at row {int(np.argmax(wrong))}")
  return out
