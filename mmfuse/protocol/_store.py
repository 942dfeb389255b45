"""What a comparison keeps on disk: run.json, a file per finished run and per choice, all whole."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from typing import Any

from mmfuse.protocol._config import UsageError, cores

FORMAT = 2


def write_json(path: pathlib.Path, value: Any) -> None:
  """To a temporary file, then renamed: a reader sees the old or the new, never half."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(json.dumps(value, indent=1, sort_keys=True))
  temporary.replace(path)


def read_json(path: pathlib.Path) -> Any:
  """The value of a JSON file; a broken one raises UsageError."""
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise UsageError(f"{str(path)!r} is broken: {error}") from error


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


def _aside(folder: pathlib.Path) -> pathlib.Path:
  """`<folder>-<n>` with the first n that is free."""
  n = 1
  while (target := folder.with_name(f"{folder.name}-{n}")).exists():
    n += 1
  return target


class Store:
  """The output folder of one comparison."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.runs = folder / "runs"

  @classmethod
  def open(cls, out: str, resume: bool) -> "Store":
    """A folder that is there is continued with `resume` and moved aside otherwise.

    Raises UsageError for a file, a place that cannot be written, the working folder itself, and for
    `resume` without a run.
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
      if not resume and folder.exists() and any(folder.iterdir()):
        target = _aside(folder)
        folder.rename(target)
        print(f"moved the earlier {folder} to {target}")
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UsageError(f"--out {out!r} cannot be made: {error.strerror}") from error
    return cls(folder)

  def start(self, info: dict, resume: bool) -> dict:
    """Writes run.json, or checks the one there: other configuration or data are refused.

    More methods may join on resuming: a row's runs and choice depend on no other row.
    """
    path = self.folder / "run.json"
    if not resume:
      write_json(path, info)
      return info
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
    if info["methods"] == old["methods"]:
      return old
    grown = {**old, **{k: info[k] for k in ("config", "methods", "sources", "command")}}
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
  names = {*old["config"], *info["config"]} - {"methods"}
  changed = sorted(k for k in names if old["config"].get(k) != info["config"].get(k))
  if set(old["methods"]) - set(info["methods"]):
    changed = sorted([*changed, "methods"])
  if changed:
    raise UsageError(
      f"--resume: the configuration differs in {', '.join(changed)}; "
      "repeat the command of the run, or use another --out"
    )
  for spec, was in old["sources"].items():
    if info["sources"].get(spec) != was:
      raise UsageError(
        f"--resume: the file of {spec!r} was edited since the run; use another --out"
      )
