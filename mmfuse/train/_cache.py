"""Compiled programs: kept on disk, let go of in memory before a process is full of them.

All of it is for the whole process, so that command lines call it, and `fit` does not.
"""

import gc
import os
import pathlib
import warnings

import jax


def cache_dir() -> pathlib.Path:
  """`$MMFUSE_CACHE_DIR`, or `~/.cache/mmfuse`."""
  chosen = os.environ.get("MMFUSE_CACHE_DIR")
  return pathlib.Path(chosen or pathlib.Path.home() / ".cache" / "mmfuse")


def enable_compilation_cache() -> None:
  """Points XLA at the cache folder, unless the user chose one or the folder cannot be written."""
  if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
    return
  folder = cache_dir()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  if os.access(folder, os.W_OK):
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


MAPS = pathlib.Path("/proc/self/maps")  # Linux alone has such a limit, and says where one stands
MAP_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")
NEARLY = 0.8  # of the limit: room for some ten methods more
_not_ours = 0.0  # share of maps that dropping programs did not free: libraries, arrays, files


def used_maps() -> float:
  """The share of the memory maps of this process that are taken; 0 where there is no such limit."""
  if not (MAPS.is_file() and MAP_LIMIT.is_file()):
    return 0.0
  with MAPS.open() as file:
    return sum(1 for _ in file) / int(MAP_LIMIT.read_text())


def release_programs(above: float = 0.3) -> bool:
  """Drops the compiled programs held in memory where they take more than `above` of its maps.

  XLA maps the code of every compiled program into memory piece by piece, 370 to 1,300 maps for a
  method of two small encoders, and Linux grants a process 65,530 of them by default. A table of
  fifty methods came to more, and XLA does not survive the last one. What is dropped is compiled
  again, or read from the cache on disk, when it is next called. Call it where no other thread runs a
  program.

  Args:
    above: share of the limit, in [0, 1], beyond what the last call could not free; default 0.3, which
      is some fifteen to fifty methods.

  Returns:
    Whether programs were dropped.
  """
  global _not_ours
  if used_maps() - _not_ours <= above:
    return False
  jax.clear_caches()
  gc.collect()  # programs in reference cycles hold their maps, too
  _not_ours = min(used_maps(), 0.5)  # else a process full of other maps would compile at every call
  return True


def warn_if_full() -> None:
  """Warns where most memory maps of the process are taken: XLA ends it at the last, without a word."""
  if used_maps() > NEARLY:
    warnings.warn(
      f"compiled programs take more than {NEARLY:.0%} of the memory maps that this process may have, "
      "and XLA crashes at the last one; call train.release_programs() between methods",
      stacklevel=3,
    )
