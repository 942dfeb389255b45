"""One hash for the content of a data set: what a table of results may and may not mix."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.data import _sequences

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
  inputs: Mapping[str, Any],
  mask: Mapping[str, np.ndarray],
  label: np.ndarray | None,
  group: np.ndarray | None,
  split: np.ndarray | None,
  class_names: Sequence[str],
  recipe: str = "",
  labelled: np.ndarray | None = None,
  weight: np.ndarray | None = None,
  beside: Mapping[str, np.ndarray] | None = None,
) -> str:
  """sha256, 64 hex digits, of names, dtypes, shapes, content, label, masks, group, split, recipe.

  Lengths, `labelled`, `weight` and arrays `beside` the modalities count where there are any.
  Absent rows, steps after the end and unknown labels are 0 by contract, so what a file holds there does
  not change it.
  """
  digest = hashlib.sha256(f"{RECIPE};{recipe};{len(inputs)};".encode())
  for m in sorted(inputs):
    _feed(digest, f"input {m!r}", _sequences.values_of(inputs[m]))
    if _sequences.is_sequence(inputs[m]):
      _feed(digest, f"length {m!r}", inputs[m].length)
    _feed(digest, f"mask {m!r}", mask[m])
  for name, x in (("label", label), ("group", group), ("split", split)):
    _feed(digest, name, x)
  for name, x in (("labelled", labelled), ("weight", weight), *sorted((beside or {}).items())):
    if x is not None:
      _feed(digest, name, x)
  digest.update(repr(tuple(class_names)).encode())
  return digest.hexdigest()


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
  """sha256, 64 hex digits, of named arrays as they lie in a file: names, dtypes, shapes, content."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    _feed(digest, name, arrays[name])
  return digest.hexdigest()
