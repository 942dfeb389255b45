"""XLA's persistent compilation cache: on by default, silently off where it cannot be written."""

import os
import pathlib

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
