"""Steps against each other in one process: rounds interleaved, medians and minima, load recorded."""

import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax

Lap = Callable[[int], float]  # steps -> seconds per step


def race(laps: Mapping[str, Lap], rounds: int, steps: int) -> dict[str, list[float]]:
  """{name: seconds per step of each round}, after a step of each that does not count."""
  for lap in laps.values():
    lap(1)
  found: dict[str, list[float]] = {name: [] for name in laps}
  for _ in range(rounds):
    for name, lap in laps.items():
      found[name].append(lap(steps))
  return found


def ratio(found: Mapping[str, list[float]], mine: str, other: str) -> dict[str, float] | None:
  """{"median" of the ratios of a round, "min" over min}, or None where one did not run."""
  if mine not in found or other not in found:
    return None
  rounds = [a / b for a, b in zip(found[mine], found[other], strict=True)]
  return {
    "median": statistics.median(rounds),
    "min": min(found[mine]) / min(found[other]),
  }


def milliseconds(found: Mapping[str, list[float]], name: str) -> float | None:
  """The median."""
  return 1e3 * statistics.median(found[name]) if name in found else None


def machine() -> dict[str, Any]:
  """What a time is of: processor, cores that this process may use, load, versions."""
  return {
    "processor": processor(),
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "load": round(os.getloadavg()[0], 2),
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
  }


def processor() -> str:
  """Its name, as Linux tells it."""
  told = pathlib.Path("/proc/cpuinfo")
  if told.is_file():
    for line in told.read_text().splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def shown(value: float | None, digits: int = 2) -> str:
  """Of a cell; n/a of nothing."""
  return "n/a" if value is None else f"{value:.{digits}f}"
