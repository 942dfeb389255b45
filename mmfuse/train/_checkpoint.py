"""Checkpoints: Orbax for a run under way, safetensors for weights. Nothing is ever unpickled."""

import functools
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mmfuse.core import State

MARK = ".mmfuse-checkpoints"  # a file in every folder whose checkpoints are ours to delete


class Checkpointer:
  """Saves (arrays, meta) at an epoch's end when enough time has passed; restores the newest one.

  `meta` is JSON; floats survive exactly. Two checkpoints are kept, so a damaged one has a
  predecessor.
  """

  def __init__(self, folder: str | pathlib.Path, seconds: float):
    self.folder, self.seconds = pathlib.Path(folder).absolute(), seconds
    self._last = time.monotonic()

  @functools.cached_property
  def _ocp(self) -> Any:
    import orbax.checkpoint as ocp  # seconds to import: only where a run is checkpointed

    return ocp

  @functools.cached_property
  def _manager(self) -> Any:
    _claim(self.folder)
    options = self._ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return self._ocp.CheckpointManager(self.folder, options=options)

  def due(self) -> bool:
    """Whether `seconds` have passed since the last save."""
    return time.monotonic() - self._last >= self.seconds

  def save(self, step: int, arrays: Any, meta: dict) -> None:
    """Writes one checkpoint; blocks until it is whole on disk.

    Args:
      step: its number; the largest one is restored first.
      arrays: a tree of arrays.
      meta: what is JSON.
    """
    save = self._ocp.args
    self._manager.save(
      step,
      args=save.Composite(arrays=save.StandardSave(arrays), meta=save.JsonSave(meta)),
      force=True,
    )
    self._manager.wait_until_finished()
    self._last = time.monotonic()

  def restore(self, template: Any, check: Callable[[dict], None]) -> tuple[Any, dict] | None:
    """The newest checkpoint that can be read as `template`, or None; says which it passed over.

    `check(meta)` raises for a checkpoint of another run, before its arrays are read. A checkpoint
    that cannot be read is removed: its step will be saved again.
    """
    if not self.folder.exists():
      return None
    load = self._ocp.args
    target = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, template)
    for step in sorted(self._manager.all_steps(), reverse=True):
      meta = self._read(step, meta=load.JsonRestore())
      if meta is not None:
        check(meta["meta"])
        found = self._read(step, arrays=load.StandardRestore(target))
        if found is not None:
          return found["arrays"], meta["meta"]
      self._manager.delete(step)
    return None

  def _read(self, step: int, **items) -> Any | None:
    try:
      return self._manager.restore(step, args=self._ocp.args.Composite(**items))
    except Exception as error:  # Orbax raises many kinds for a damaged file; each is reported
      warnings.warn(
        f"checkpoint {step} in {self.folder} cannot be read ({type(error).__name__}); "
        "trying the one before",
        stacklevel=4,
      )
      return None

  def close(self) -> None:
    """Releases the manager, where one was made."""
    if "_manager" in vars(self):
      self._manager.close()


def _named(state: State) -> dict[str, Any]:
  """{"params/accel/...": leaf} of everything a prediction may need: no optimiser state."""
  kept = {"params": state.params, "stats": state.stats, "memory": state.memory}
  entry = lambda p: str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p))))
  return {
    "/".join(entry(p) for p in path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(kept)[0]
  }


def save_weights(
  path: str | pathlib.Path, state: State, about: Mapping[str, str] | None = None
) -> None:
  """Writes params, batch statistics and memory as safetensors, whole or not at all.

  A tensor's name is its path in the state, joined by "/": "params/audio/dense0/kernel".

  Args:
    path: of the file; one that is there is replaced.
    state: of one run, without an axis of seeds; its optimiser state is left out.
    about: what the file says of itself (its metadata), for `load_weights` to check; default: nothing.
  """
  from safetensors.numpy import save

  # `np.ascontiguousarray` would make a scalar [1].
  tensors = {k: np.asarray(v, order="C") for k, v in jax.device_get(_named(state)).items()}
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_bytes(save(tensors, {**(about or {}), "format": "mmfuse-1"}))
  temporary.replace(path)


def load_weights(
  path: str | pathlib.Path, template: State, about: Mapping[str, str] | None = None
) -> State:
  """The saved state in the structure of `template` (from `method.init`), without optimiser state.

  Args:
    path: of the file.
    template: a state of the same model; only structure and shapes are read.
    about: what the file must say of itself, as in `save_weights`; default: anything.

  Raises:
    ValueError: no safetensors file, one of another model, or one that says otherwise than `about`
      of itself (names the first difference).
  """
  from safetensors import SafetensorError, safe_open
  from safetensors.numpy import load

  try:
    tensors = load(pathlib.Path(path).read_bytes())
  except SafetensorError as error:
    raise ValueError(f"{path} is not a safetensors file: {error}") from error
  with safe_open(path, framework="numpy") as file:
    said = file.metadata() or {}
  for name, value in (about or {}).items():
    if said.get(name) != value:
      raise ValueError(
        f"{path} is of another run: its {name} is {said.get(name)}, expected {value}"
      )
  wanted = _named(template)
  for name in sorted(set(wanted) ^ set(tensors)):
    where = "the model" if name in wanted else "the file"
    raise ValueError(f"{path} is of another model: {name!r} is only in {where}")
  for name, leaf in wanted.items():
    if tuple(leaf.shape) != tensors[name].shape:
      raise ValueError(
        f"{path} is of another model: {name!r} has shape {tensors[name].shape}, "
        f"expected {tuple(leaf.shape)}"
      )
  kept = {"params": template.params, "stats": template.stats, "memory": template.memory}
  loaded = jax.tree.unflatten(jax.tree.structure(kept), [tensors[name] for name in wanted])
  return State(loaded["params"], loaded["stats"], {}, loaded["memory"])


def _claim(folder: pathlib.Path) -> None:
  """Marks a new or empty folder as one of checkpoints; any other without the mark is refused."""
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"checkpoint folder {str(folder)!r} is a file")
  folder.mkdir(parents=True, exist_ok=True)
  there = sorted(p.name for p in folder.iterdir())
  if there and MARK not in there:
    raise ValueError(
      f"{str(folder)!r} holds {there[0]!r} and is no folder of checkpoints; "
      "expected a new or empty one, since old checkpoints are deleted in it"
    )
  (folder / MARK).touch()


def _is_checkpoint(path: pathlib.Path) -> bool:
  """Whether this is the mark, a checkpoint, or a half-written one."""
  return path.name == MARK or (path.is_dir() and re.match(r"\d+($|\.)", path.name) is not None)


def remove_checkpoints(folder: str | pathlib.Path) -> None:
  """Deletes the checkpoints of a finished run, and their folder.

  Raises ValueError, having deleted nothing, where the folder holds anything else.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    return
  groups = [folder] if (folder / MARK).is_file() else sorted(folder.iterdir())
  foreign = [g for g in groups if not (g / MARK).is_file()]
  foreign += [p for g in groups if g not in foreign for p in g.iterdir() if not _is_checkpoint(p)]
  if foreign:
    raise ValueError(f"{str(foreign[0])!r} is no checkpoint: nothing in {str(folder)!r} is deleted")
  for group in groups:
    shutil.rmtree(group)
  if folder.is_dir():
    folder.rmdir()
