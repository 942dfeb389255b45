"""`results.jsonl`: exactly one line per (method, seed, fold), written whole or not at all."""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Record = Mapping[str, Any]


def key_of(record: Record) -> tuple[str, int, int | None]:
  """(method, seed, fold): what a line of `results.jsonl` is the only one of."""
  missing = [k for k in ("method", "seed") if k not in record]
  if missing:
    raise ValueError(f"a record needs {missing[0]!r}, got only: {', '.join(sorted(record))}")
  return record["method"], record["seed"], record.get("fold")


def check_unique(records: Iterable[Record]) -> None:
  """Raises ValueError where two records have the same (method, seed, fold)."""
  seen = set()
  for record in records:
    key = key_of(record)
    if key in seen:
      where = f"method {key[0]!r}, seed {key[1]}" + ("" if key[2] is None else f", fold {key[2]}")
      raise ValueError(f"two records for {where}; results hold exactly one per run")
    seen.add(key)


def plain(value: Any) -> Any:
  """`value` as JSON holds it: arrays and their scalars as lists and numbers, NaN and inf as None.

  Raises TypeError for anything else, naming its type.
  """
  if value is None or isinstance(value, str | bool | int):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
    return plain(np.asarray(value).tolist())
  raise TypeError(
    f"a record holds numbers, strings, lists and mappings; got a {type(value).__name__}"
  )


def write_whole(path: str | os.PathLike, content: bytes) -> pathlib.Path:
  """Writes a temporary file beside `path` and renames it: readers see the old file or the new.

  It is on the disk before the name is: a machine that goes down leaves no empty file.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return path


def write_jsonl(records: Iterable[Record], path: str | os.PathLike) -> pathlib.Path:
  """Writes records to `path`, one JSON object a line, in the order given; NaN and inf become null.

  The whole file is written beside `path` and renamed, so that an interrupted run leaves no half
  line. Raises ValueError for two records of one (method, seed, fold), TypeError for what JSON
  cannot hold.
  """
  records = [plain(r) for r in records]
  check_unique(records)
  lines = [json.dumps(r, allow_nan=False, ensure_ascii=False) + "\n" for r in records]
  return write_whole(path, "".join(lines).encode())


def _constant(name: str) -> None:
  raise ValueError(f"{name} is not JSON; a missing number is null")


def read_jsonl(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The records in `path`; an empty file gives an empty list.

  Raises FileNotFoundError without the file, ValueError with the line number for a line that is no
  JSON object, and for two records of one (method, seed, fold).
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no results at {path}: expected a results.jsonl file")
  records = []
  for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line, parse_constant=_constant)
    except ValueError as error:
      raise ValueError(f"line {number} of {path} is not a JSON object: {error}") from error
    if not isinstance(record, dict):
      raise ValueError(f"line {number} of {path} is not a JSON object: {line[:40]}")
    records.append(record)
  check_unique(records)
  return records
