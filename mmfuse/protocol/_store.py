"""What a comparison keeps on disk: run.json, one file per finished run, one per choice. All written whole."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from typing import Any

from mmfuse.protocol._config import UsageError

FORMAT = 1


def write_json(path: pathlib.Path, value: Any) -> None:
  """To a temporary file, then renamed: a reader sees the old or the new, never half."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(json.dumps(value, indent=1, sort_keys=True))
  temporary.replace(path)


def read_json(path: pathlib.Path) -> Any:
  """The value of a JSON file."""
  return json.loads(path.read_text())


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
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  return {**found, "python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}",
          "backend": jax.default_backend(), "device": jax.devices()[0].device_kind,
          "device_count": jax.device_count(), "cpu_count": cores,
          "xla_flags": os.environ.get("XLA_FLAGS", "")}


class Store:
  """The output folder of one comparison."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.runs = folder / "runs"

  @classmethod
  def open(cls, out: str, resume: bool) -> "Store":
    """An existing folder is continued with `resume` and moved aside otherwise; nothing is overwritten."""
    folder = pathlib.Path(out)
    if folder.exists() and not folder.is_dir():
      raise UsageError(f"--out {out!r} is a file, expected a folder")
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
      raise UsageError(f"--out {out!r} cannot be written")
    if not resume and folder.exists() and any(folder.iterdir()):
      number = next(n for n in range(1, 10_000) if not pathlib.Path(f"{out}-{n}").exists())
      folder.rename(f"{out}-{number}")
      print(f"moved the earlier {out} to {out}-{number}")
    if resume and not (folder / "run.json").is_file():
      raise UsageError(f"--resume: there is no run in {out!r}")
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UsageError(f"--out {out!r} cannot be made: {error.strerror}") from error
    return cls(folder)

  def start(self, info: dict, resume: bool) -> dict:
    """Writes run.json, or checks the one there: other configuration or data are refused."""
    path = self.folder / "run.json"
    if not resume:
      write_json(path, info)
      return info
    old = read_json(path)
    if old.get("format") != FORMAT:
      raise UsageError(f"--resume: {path} was written by another version of mmfuse")
    if old["data_fingerprint"] != info["data_fingerprint"]:
      raise UsageError("--resume: the data differ from those of the run "
                       f"({info['data_fingerprint'][:12]}, there {old['data_fingerprint'][:12]})")
    if old["config"] != info["config"]:
      changed = sorted(k for k in {*old["config"], *info["config"]}
                       if old["config"].get(k) != info["config"].get(k))
      raise UsageError(f"--resume: the configuration differs in {', '.join(changed)}; "
                       "repeat the command of the run, or use another --out")
    for name in ("cpu_count", "device_count", "xla_flags", "jax", "jaxlib", "backend"):
      if old["versions"].get(name) != info["versions"].get(name):
        print(f"warning: {name} is {info['versions'].get(name)!r}, the run was begun with "
              f"{old['versions'].get(name)!r}: its numbers may differ in the last digits")
    return old

  def run_path(self, row: str, fold: int | None, seed: int, trial_key: str, suffix: str) -> pathlib.Path:
    """Where a run is kept."""
    part = "" if fold is None else f"fold{fold}-"
    return self.runs / row / f"{part}seed{seed}-{trial_key}{suffix}"

  def choice_path(self, row: str, fold: int | None) -> pathlib.Path:
    """Where the choice of a row is written, before any test row is read."""
    return self.runs / row / ("choice.json" if fold is None else f"choice-fold{fold}.json")
