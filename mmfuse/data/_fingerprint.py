"""One hash for the content of a data set: what a table of results may and may not mix."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

RECIPE = "mmfuse-data-1"  # raised when the door reads the same arrays into other numbers


def _feed(digest, name: str, x: np.ndarray | None) -> None:
  if x is None:
    digest.update(f"{name}:none;".encode())
    return
  if x.dtype.kind in "US":
    x = np.char.encode(x.astype(str), "utf-8")
  plain = np.ascontiguousarray(x, x.dtype.newbyteorder("<"))  # the same on every machine
  digest.update(f"{name}:{plain.dtype.str}:{plain.shape};".encode())
  digest.update(plain.data if plain.size else b"")


def fingerprint(
  inputs: Mapping[str, np.ndarray],
  mask: Mapping[str, np.ndarray],
  label: np.ndarray,
  group: np.ndarray | None,
  split: np.ndarray | None,
  class_names: Sequence[str],
  recipe: str = "",
) -> str:
  """sha256, 64 hex digits, of names, dtypes, shapes, content, label, masks, group, split, recipe.

  Absent rows are 0 by contract (`read_inputs`), so what a file holds there does not change it.
  """
  digest = hashlib.sha256(f"{RECIPE};{recipe};{len(inputs)};".encode())
  for m in sorted(inputs):
    _feed(digest, f"input {m!r}", inputs[m])
    _feed(digest, f"mask {m!r}", mask[m])
  for name, x in (("label", label), ("group", group), ("split", split)):
    _feed(digest, name, x)
  digest.update(repr(tuple(class_names)).encode())
  return digest.hexdigest()
