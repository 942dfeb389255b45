"""Freed memory stays with the process: a program called again faults no page of its temporary memory."""

import os
import subprocess
import sys

import pytest

from mmfuse.train import _memory

# 64 MiB of temporary memory, more than the largest block that glibc would keep on its own.
FAULTS = """
import resource
from mmfuse import train
print(KEEP and train.keep_freed_memory())
import jax, jax.numpy as jnp
step = jax.jit(lambda x: jnp.sort(jnp.broadcast_to(x, (1 << 16, 256)), 0)[::4096].sum())
step(jnp.arange(256.0)).block_until_ready()
step(jnp.arange(256.0)).block_until_ready()
faults = []
for _ in range(9):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(jnp.arange(256.0)).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[4])
"""


def _run(keep, **environment):
  environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | environment
  found = subprocess.run(
    [sys.executable, "-c", FAULTS.replace("KEEP", str(keep))],
    capture_output=True, text=True, check=True, env=environment)  # fmt: skip
  done, faults = found.stdout.split()
  return done == "True", int(faults)


def test_pages_stay_where_glibc_can_keep_them():
  kept, few = _run(True)
  if not kept:
    pytest.skip("no glibc here")
  _, many = _run(False)
  if many < 1_000:  # 64 MiB in pages of 4 KiB are 16,384
    pytest.skip("pages are huge here")
  assert few < many / 10


@pytest.mark.parametrize(
  "name, value", [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")])
def test_what_the_environment_sets_is_left_alone(monkeypatch, name, value):
  monkeypatch.setenv(name, value)
  assert not _memory.keep_freed_memory()
