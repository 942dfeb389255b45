"""Freed memory stays with the process: a block that is allocated again faults no page."""

import os
import subprocess
import sys

import pytest

from mmfuse.train import _memory

# By malloc itself and in one thread: XLA's threads free when they get to it, and what lies between differs.
FAULTS = """
import ctypes, resource
from mmfuse import train
print(KEEP and train.keep_freed_memory())
libc, size = ctypes.CDLL(None), 64 << 20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
libc.free.argtypes = (ctypes.c_void_p,)
faults = []
for _ in range(5):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = libc.malloc(size)
  libc.memset(block, 1, size)
  libc.free(block)
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[2])
"""


def _run(keep, **environment):
  environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | environment
  found = subprocess.run(
    [sys.executable, "-c", FAULTS.replace("KEEP", str(keep))],
    capture_output=True,
    text=True,
    check=True,
    env=environment,
  )
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
  "name, value",
  [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")],
)
def test_what_the_environment_sets_is_left_alone(monkeypatch, name, value):
  monkeypatch.setenv(name, value)
  assert not _memory.keep_freed_memory()
