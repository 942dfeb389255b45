"""One hash for the content of a data set: what a table of results may and may not mix."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse.data import _sequences
from mmfuse.data._inputs import EXTRA, TRUTH

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


def stamped(table: Any, recipe: str = "") -> Any:
  """A `Table` with the fingerprint of what it holds, and of the `recipe` that made it.

  sha256, 64 hex digits, of names, dtypes, shapes, content, label, masks, group, split, recipe.
  Lengths, `labelled`, `weight` and arrays beside the modalities count where there are any. Absent
  rows, steps after the end and unknown labels are 0 by contract, so what a file holds there does
  not change it.
  """
  inputs = table.inputs
  digest = hashlib.sha256(f"{RECIPE};{recipe};{len(inputs)};".encode())
  for m in sorted(inputs):
    _feed(digest, f"input {m!r}", _sequences.values_of(inputs[m]))
    if _sequences.is_sequence(inputs[m]):
      _feed(digest, f"length {m!r}", inputs[m].length)
    _feed(digest, f"mask {m!r}", table.mask[m])
  for name in ("label", "group", "split"):
    _feed(digest, name, getattr(table, name))
  beside = {EXTRA + n: x for n, x in table.extra.items()}
  beside |= {TRUTH + n: x for n, x in table.truth.items()}
  given = (("labelled", table.labelled), ("weight", table.weight), *sorted(beside.items()))
  for name, x in given:
    if x is not None:
      _feed(digest, name, x)
  digest.update(repr(tuple(table.class_names)).encode())
  return dataclasses.replace(table, fingerprint=digest.hexdigest())


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
  """sha256, 64 hex digits, of named arrays as they lie in a file: names, dtypes, shapes, content."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    _feed(digest, name, arrays[name])
  return digest.hexdigest()
