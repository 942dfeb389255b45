"""The `.npz` reader. Pickles are never loaded."""

import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._table import Table

HINT = "np.savez(path, label=..., name=..., ...) writes one"


def read_arrays(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of an `.npz` archive.

  Raises:
    DataError: no such file, a file that is no archive, a broken archive, an array of objects.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise DataError(f"there is no file {str(path)!r}")
  if not path.is_file() or not zipfile.is_zipfile(path):
    raise DataError(f"{str(path)!r} is no .npz archive; {HINT}")
  arrays = {}
  try:
    with np.load(path, allow_pickle=False) as archive:
      for name in archive.files:
        arrays[name] = _read(archive, name, path)
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
    raise DataError(f"{str(path)!r} is broken and cannot be read: {error}") from error
  if not arrays:
    raise DataError(f"{str(path)!r} holds no array")
  return arrays


def _read(archive: Any, name: str, path: pathlib.Path) -> np.ndarray:
  try:
    return archive[name]
  except ValueError as error:  # numpy's refusal of a pickle, or a broken header
    raise DataError(
      f"array {name!r} of {str(path)!r} cannot be read as numbers or strings ({error}); "
      "arrays of Python objects are never loaded"
    ) from error


def read_npz(
  path: str | pathlib.Path,
  *,
  task: str | None = None,
  encoders: Mapping[str, Any] | None = None,
  modalities: Sequence[str] | None = None,
  ignore: Sequence[str] | None = None,
  drop_empty: bool = False,
) -> Table:
  """The table of an `.npz` archive, named after the file; see `table_from_arrays`."""
  name = pathlib.Path(path).stem
  return table_from_arrays(
    read_arrays(path), task=task, encoders=encoders, modalities=modalities, ignore=ignore,
    drop_empty=drop_empty, name=name,
  )  # fmt: skip
