"""What a comparison keeps on disk: run.json, a file per finished run and per choice, all whole."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Mapping
from typing import Any

from mmfuse import report
from mmfuse.protocol._config import UsageError, cores
from mmfuse.protocol._lock import INSIDE, Held, Lock, holder_inside

FORMAT = 3


class ForeignFile(UsageError):
  """A file in the output folder that is not of this run: nothing goes on until it is moved away."""


def write_json(path: pathlib.Path, value: Any) -> None:
  """A JSON file, written whole; its folder is made."""
  path.parent.mkdir(parents=True, exist_ok=True)
  report.write_whole(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: pathlib.Path) -> Any:
  """The value of a JSON file; a broken one raises ForeignFile."""
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise ForeignFile(f"{str(path)!r} is broken: {error}") from error


def read_own(path: pathlib.Path, identity: Mapping[str, Any]) -> dict:
  """A JSON file that holds `identity`; raises ForeignFile for one that says otherwise."""
  found = read_json(path)
  for name, value in json.loads(json.dumps(identity)).items():
    if not isinstance(found, dict) or found.get(name) != value:
      there = found.get(name) if isinstance(found, dict) else found
      raise ForeignFile(
        f"{str(path)!r} is not of this run: its {name} is {there!r}, expected {value!r}; "
        "move the file away"
      )
  return found


def versions() -> dict[str, Any]:
  """What the numbers depend on besides configuration and data."""
  import jax

  names = ("mmfuse", "jax", "jaxlib", "flax", "optax", "numpy")
  found = {}
  for name in names:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "source"
  return {
    **found,
    "python": platform.python_version(),
    "platform": f"{sys.platform}-{platform.machine()}",
    "backend": jax.default_backend(),
    "device": jax.devices()[0].device_kind,
    "device_count": jax.device_count(),
    "cpu_count": cores(),
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
  }


def _beside(folder: pathlib.Path) -> tuple[pathlib.Path, Lock]:
  """`<folder>-<n>` with the first n that is free, and its lock."""
  n = 0
  while True:
    n += 1
    target = folder.with_name(f"{folder.name}-{n}")
    try:
      lock = Lock.take(target)
    except Held:
      continue
    if not target.exists():
      return target, lock
    lock.release()


def _own(folder: pathlib.Path, elsewhere: bool) -> tuple[pathlib.Path, Lock]:
  """The folder and its lock; with `elsewhere` a free one beside it where another process has it."""
  folder.resolve().parent.mkdir(parents=True, exist_ok=True)
  try:
    return folder, Lock.take(folder)
  except Held as held:
    if not elsewhere:
      raise UsageError(f"--out {str(folder)!r} {held}") from held
    target, lock = _beside(folder)
    print(f"note: {folder} {held.args[0].split(';')[0]}; this run goes to {target}")
    return target, lock


def _move_aside(folder: pathlib.Path) -> None:
  """Renames what an earlier run left, under the lock of the new name too."""
  if inside := holder_inside(folder):
    raise UsageError(f"--out {str(folder)!r} cannot be moved aside: a folder in it {inside}")
  place = folder.resolve()  # what a link points to, not the link
  target, lock = _beside(place)
  try:
    place.rename(target)
  finally:
    lock.release()
  shown = target if folder.is_symlink() else folder.with_name(target.name)
  print(f"moved the earlier {folder} to {shown}")


class Store:
  """The output folder of one comparison."""

  def __init__(self, folder: pathlib.Path, lock: Lock | None = None):
    self.folder, self._lock = folder, lock
    self.runs = folder / "runs"

  @classmethod
  def open(cls, out: str, resume: bool, elsewhere: bool = False) -> "Store":
    """A folder that this process alone writes, until `close`.

    One that is there is continued with `resume` and moved aside otherwise. One that another process
    writes is refused, before anything is written or moved; with `elsewhere` a free name beside it
    is taken instead.

    Raises UsageError for a file, a place that cannot be written, the working folder itself, a
    folder that another process has, and for `resume` without a run.
    """
    folder = pathlib.Path(out)
    if folder.exists() and not folder.is_dir():
      raise UsageError(f"--out {out!r} is a file, expected a folder")
    if resume and not (folder / "run.json").is_file():
      raise UsageError(f"--resume: there is no run in {out!r}")
    if folder.resolve() in (here := pathlib.Path.cwd().resolve(), *here.parents):
      raise UsageError(
        f"--out {out!r} is the working folder or above it, expected a folder below it"
      )
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
      raise UsageError(f"--out {out!r} cannot be written: no access to {str(parent)!r}")
    try:
      folder, lock = _own(folder, elsewhere and not resume)
    except OSError as error:
      raise UsageError(f"--out {out!r} cannot be made: {error.strerror}") from error
    try:
      if lock.note:
        print(f"note: {folder}: {lock.note}")
      if not resume and folder.exists() and any(p.name != INSIDE for p in folder.iterdir()):
        _move_aside(folder)
      folder.resolve().mkdir(exist_ok=True)
    except BaseException as error:
      lock.release()
      if isinstance(error, OSError):
        raise UsageError(f"--out {out!r} cannot be made: {error.strerror}") from error
      raise
    return cls(folder, lock)

  def close(self) -> None:
    """Lets other processes have the folder."""
    if self._lock is not None:
      self._lock.release()

  def __enter__(self) -> "Store":
    return self

  def __exit__(self, *error) -> None:
    self.close()

  def start(self, info: dict, resume: bool) -> dict:
    """Writes run.json, or checks the one there: other configuration or data are refused.

    More methods may join on resuming, and those that are not named stay in the run: a row's runs
    and choice depend on no other row.
    """
    path = self.folder / "run.json"
    if not resume:
      write_json(path, info)
      return info
    if not path.is_file():
      raise UsageError(f"--resume: there is no run in {str(self.folder)!r}")
    old = read_json(path)
    if old.get("format") != FORMAT:
      raise UsageError(f"--resume: {str(path)!r} was written by another version of mmfuse")
    _check_same(old, info)
    for name in ("cpu_count", "device_count", "XLA_FLAGS", "jax", "jaxlib", "backend"):
      now, then = info["versions"].get(name), old["versions"].get(name)
      if now != then:
        print(
          f"warning: {name} is {now!r}, the run was begun with {then!r}: "
          "its numbers may differ in the last digits",
          file=sys.stderr,
        )
    if set(info["methods"]) <= set(old["methods"]):
      return old
    methods = [*info["methods"], *(m for m in old["methods"] if m not in info["methods"])]
    grown = {
      **old,
      "config": {**info["config"], "methods": methods},
      "methods": methods,
      "sources": {**old["sources"], **info["sources"]},
      "command": info["command"],
    }
    write_json(path, grown)
    return grown

  def run_path(
    self, row: str, fold: int | None, seed: int, trial_key: str, suffix: str
  ) -> pathlib.Path:
    """Where a run is kept."""
    part = "" if fold is None else f"fold{fold}-"
    return self.runs / row / f"{part}seed{seed}-{trial_key}{suffix}"

  def choice_path(self, row: str, fold: int | None) -> pathlib.Path:
    """Where the choice of a row is written, before any test row is read."""
    return self.runs / row / ("choice.json" if fold is None else f"choice-fold{fold}.json")

  def run_files(self, row: str, fold: int | None) -> list[pathlib.Path]:
    """The logs of the finished runs of a row on one split."""
    return sorted((self.runs / row).glob("seed*.json" if fold is None else f"fold{fold}-*.json"))


def _check_same(old: dict, info: dict) -> None:
  """Raises UsageError where data, configuration or the user's own code differ from the run's."""
  there, here = old["data_fingerprint"], info["data_fingerprint"]
  if there != here:
    raise UsageError(
      f"--resume: the data differ from those of the run ({here[:12]}, there {there[:12]})"
    )
  if old.get("missing") != info.get("missing"):
    raise UsageError("--resume: the missing tables differ from those of the run; use another --out")
  names = {*old["config"], *info["config"]} - {"methods"}
  changed = sorted(k for k in names if old["config"].get(k) != info["config"].get(k))
  if changed:
    raise UsageError(
      f"--resume: the configuration differs in {', '.join(changed)}; "
      "repeat the command of the run, or use another --out"
    )
  for spec, was in old["sources"].items():
    if info["sources"].get(spec, was) != was:
      raise UsageError(
        f"--resume: the code of {spec!r} was edited since the run; use another --out"
      )
