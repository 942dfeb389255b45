"""The `.npz` reader. Pickles are never loaded, and nothing is read that does not fit in memory."""

import math
import os
import pathlib
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._table import Table

HINT = "np.savez(path, label=..., name=..., ...) writes one"
_HEADERS = {  # by version of the .npy format; 3.0 is for records with named fields
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


class _Member(NamedTuple):
  """One array of an archive, before it is read."""

  info: zipfile.ZipInfo
  name: str  # of the array
  size: int  # bytes it takes once it is read


def read_arrays(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of an `.npz` archive.

  Raises:
    DataError: no such file, a file that is no archive, a broken archive, a member that is no array,
      an array of objects, more than fits in memory.
  """
  path, shown = str(path), repr(str(path))
  _check_file(path, shown)
  at, members, arrays = "the list of its arrays", [], {}
  try:
    with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
      warnings.simplefilter("error")  # what a header makes Python or numpy warn of is a fault of it
      # The one exception: old but sound.
      warnings.filterwarnings("ignore", "Reading .* created on Python 2", UserWarning)
      for info in archive.infolist():
        at = repr(info.filename)
        members.append(_member(archive, info, shown))
      _check_names(members, shown)
      _check_memory(members, shown)
      for m in members:
        at = repr(m.info.filename)
        arrays[m.name] = _read(archive, m, shown)
  except DataError:
    raise
  except EOFError as error:
    raise DataError(f"{shown} is truncated: its bytes end within {at}") from error
  # Foreign bytes, through zipfile, four decompressors, `ast.literal_eval` and numpy's dtypes: what
  # they raise on them is listed nowhere (NotImplementedError, RuntimeError, struct.error,
  # RecursionError, MemoryError, tokenize.TokenError, lzma.LZMAError...), and is never more than this.
  except Exception as error:
    raise DataError(f"{shown} is broken at {at} and cannot be read: {_said(error)}") from error
  if not arrays:
    raise DataError(f"{shown} holds no array")
  return arrays


def _check_file(path: str, shown: str) -> None:
  """Raises DataError unless there is a file that begins and ends as an archive does."""
  if not os.path.exists(path):
    raise DataError(f"there is no file {shown}")
  if not os.path.isfile(path):
    raise DataError(f"{shown} is no .npz archive but a folder or device; {HINT}")
  try:
    with open(path, "rb") as file:
      begins = file.read(4)
  except OSError as error:
    raise DataError(f"{shown} cannot be opened: {error.strerror or _said(error)}") from error
  if not begins:
    raise DataError(f"{shown} is no .npz archive: it is empty; {HINT}")
  if zipfile.is_zipfile(path):
    return
  if begins == b"PK\x03\x04":
    raise DataError(f"{shown} is truncated: the list of its arrays, which ends an archive, is gone")
  raise DataError(f"{shown} is no .npz archive; {HINT}")


def _said(error: BaseException) -> str:
  """What an error says, on one line of printable characters."""
  text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
  return (text[:157] + "..." if len(text) > 160 else text) or type(error).__name__


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shown: str) -> _Member:
  """Reads the header of an array, and no more; it must claim the bytes that the archive holds."""
  name = info.filename.removesuffix(".npy")
  if info.is_dir():
    raise DataError(f"{shown} holds the folder {info.filename!r}, expected arrays alone; {HINT}")
  if info.flag_bits & 1:
    raise DataError(f"{shown} is encrypted ({info.filename!r}), expected an open archive; {HINT}")
  with archive.open(info) as file:
    if file.read(6) != b"\x93NUMPY":
      raise DataError(f"{info.filename!r} in {shown} is no array (.npy); {HINT}")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
      raise ValueError(f"the .npy format is version {version[0]}.{version[1]}")
    shape, _, dtype = _HEADERS[version](file)
    held = info.file_size - file.tell()
  if dtype.hasobject:
    raise DataError(
      f"array {name!r} of {shown} holds Python objects; arrays of Python objects are never loaded"
    )
  if any(n < 0 for n in shape):
    raise ValueError(f"the header says the shape {list(shape)}")
  count = math.prod(shape)  # of Python integers, which do not overflow
  if count * dtype.itemsize != held:
    raise ValueError(
      f"the header says {dtype} {list(shape)}, {count * dtype.itemsize} bytes, the archive holds {held}"
    )
  return _Member(info, name, count * max(dtype.itemsize, 4))  # numbers become float32 in the end


def _check_names(members: list[_Member], shown: str) -> None:
  seen: set[str] = set()
  for m in members:
    if m.name in seen:
      raise DataError(f"{shown} holds two arrays called {m.name!r}")
    seen.add(m.name)


def _check_memory(members: list[_Member], shown: str) -> None:
  """Raises DataError where the arrays would take more than half of the memory that is free."""
  size, free = sum(m.size for m in members), available_memory()
  if free is not None and 2 * size > free:
    largest = max(members, key=lambda m: m.size)
    raise DataError(
      f"{shown} takes {_bytes(size)} of memory once it is read ({_bytes(largest.size)} of them "
      f"for {largest.name!r}), more than half of the {_bytes(free)} that are free"
    )


def _bytes(size: int) -> str:
  return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def available_memory() -> int | None:
  """Bytes that a process can still get; None where the system does not say."""
  try:
    with open("/proc/meminfo") as file:  # counts what caches would give back
      found = re.search(r"^MemAvailable:\s*(\d+) kB", file.read(), re.MULTILINE)
    if found:
      return int(found[1]) * 1024
  except OSError:
    pass  # not Linux
  try:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (AttributeError, OSError, ValueError):
    return None


def _read(archive: zipfile.ZipFile, member: _Member, shown: str) -> np.ndarray:
  with archive.open(member.info) as file:
    x = np.lib.format.read_array(file, allow_pickle=False)
    file.read()  # nothing is left; at the end the checksum is compared
  if x.dtype.kind == "b" and x.size and x.view(np.uint8).max() > 1:
    raise DataError(f"array {member.name!r} of {shown} is bool and holds other bytes than 0 and 1")
  if x.dtype.kind == "U" and not _is_text(x):
    raise DataError(f"array {member.name!r} of {shown} holds strings that are no Unicode")
  return x


def _is_text(x: np.ndarray) -> bool:
  """Whether every character is one that can be written: neither beyond Unicode nor half of a pair."""
  if not x.nbytes:
    return True
  codes = np.ascontiguousarray(x).reshape(-1).view(x.dtype.str[0] + "u4")
  return not ((codes > 0x10FFFF) | ((codes & 0xFFFFF800) == 0xD800)).any()


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
    read_arrays(path),
    task=task,
    encoders=encoders,
    modalities=modalities,
    ignore=ignore,
    drop_empty=drop_empty,
    name=name,
  )
