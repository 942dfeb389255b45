"""Strict mode: warnings are errors (pyproject), rank promotion raises, 4 virtual CPU devices."""

import importlib.metadata
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of the suite's time: LLVM's passes are switched off, XLA's own stay as they are. Of
# the jaxlib that they were measured with, two more options: together .4 of the time to compile a step.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=4"
  + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
  + (
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else ""  # XLA ends a process on a flag that it does not know
  )
)
os.environ.setdefault(
  "MMFUSE_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "xla")
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", os.environ["MMFUSE_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="module", autouse=True)
def release_programs():
  """A worker compiles thousands of programs, more than one process may map at a time."""
  yield
  from mmfuse import train

  train.release_programs()
