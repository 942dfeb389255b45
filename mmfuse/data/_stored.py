"""Files that the user brings: the folder they lie in, and archives known by what they hold."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmfuse.data import _fingerprint
from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._npz import read_arrays
from mmfuse.data._splitting import by_class
from mmfuse.data._table import Table

DATA_DIR = "MMFUSE_DATA_DIR"
VALIDATION, SEED = 0.2, 0  # share of the official training items that validate; part of a recipe


class Archive(NamedTuple):
  """An `.npz` that a built-in set is read from."""

  set: str
  file: str
  what: str  # its arrays and where they come from
  licence: str
  sha256: str  # `_fingerprint.of_arrays`: how they are compressed does not matter

  @property
  def described(self) -> str:
    """`x.npz (what it holds; licence: ...)`."""
    return f"{self.file} ({self.what}; licence: {self.licence})"


def folder(data_dir: str | Path | None, unless: str) -> Path:
  """`data_dir` or $MMFUSE_DATA_DIR.

  Raises DataError: `unless` where neither is given, and where it is no folder.
  """
  given = data_dir or os.environ.get(DATA_DIR)
  if not given:
    raise DataError(unless)
  if not Path(given).is_dir():
    raise DataError(f"the data folder {given} is not a folder")
  return Path(given)


def read(archive: Archive, data_dir: str | Path | None = None) -> dict[str, np.ndarray]:
  """Every array of the archive in `data_dir` or $MMFUSE_DATA_DIR, by name; pickles are not loaded.

  Raises DataError where the folder or the file is missing, or its arrays are others.
  """
  root = folder(
    data_dir,
    f"{archive.set} is read from {archive.described}: give data_dir (--data-dir) or set "
    f"{DATA_DIR} to the folder that has it",
  )
  path = root / archive.file
  if not path.is_file():
    raise DataError(f"the data folder {root} has no {archive.described}")
  arrays = read_arrays(path)
  if _fingerprint.of_arrays(arrays) != archive.sha256:
    raise DataError(
      f"{path} does not hold the arrays that {archive.set} is read from (another sha256): refused"
    )
  return arrays


def table_of(
  archive: Archive,
  recipe: str,
  arrays: dict[str, np.ndarray],
  fake: bool,
  encoders: Mapping[str, Any] | None = None,
) -> Table:
  """The table of what is used of an archive; a generated twin is called `<set>_fake`.

  Args:
    archive: which says the name of the set.
    recipe: version of the way from the archive to the table, part of the fingerprint.
    arrays: as in `table_from_arrays`.
    fake: they are generated.
    encoders: {modality: spec} of tokens; default none.
  """
  name = f"{archive.set}_fake" if fake else archive.set
  return table_from_arrays(arrays, name=name, recipe=recipe, encoders=encoders)


def split_column(train: np.ndarray, label: np.ndarray) -> np.ndarray:
  """str `[N]` from an official split: a fifth of its training items validate, the others test.

  Args:
    train: bool `[N]`, the official training items.
    label: `[N]`, by which the validation items are stratified; they are drawn with a fixed seed.
  """
  split = np.full(len(train), "test", dtype="<U10")
  held_out = by_class(label[train], (1 - VALIDATION, VALIDATION), SEED)
  split[train] = np.where(held_out == 0, "train", "validation")
  return split
