"""Step times of several methods, interleaved, so that a drifting machine moves them all alike."""

import time
from collections.abc import Mapping
from typing import Any

import jax

from mmfuse.core import Clock, Method
from mmfuse.train import _fit


def interleaved_step_times(
    methods: Mapping[str, Method], data: Any, *, batch_size: int = 64, rounds: int = 5,
    budget: float = 60.0,
) -> dict[str, list[float]]:
  """{name: seconds per step of each round}: one epoch of each method in turn, after a warm-up.

  The programs are those of `fit`, found again where they are compiled. `budget`: seconds after
  which no further round is begun (the first one always runs).
  """
  racers = {name: _Racer(method, data, batch_size) for name, method in methods.items()}
  for racer in racers.values():
    racer.lap()
  times: dict[str, list[float]] = {name: [] for name in racers}
  began = time.perf_counter()
  for _ in range(rounds):
    for name, racer in racers.items():
      times[name].append(racer.lap())
    if time.perf_counter() - began > budget:
      break
  return times


class _Racer:
  """One method's first phase, ready to run an epoch at a time."""

  def __init__(self, method: Method, data: Any, batch_size: int):
    self.phase = method.phases[0]
    plan = _fit.make_plan(method, data, epochs=1, batch_size=batch_size)
    self.group = _fit.Group(plan, [(0, None)])
    self.state = self.group.initial()
    self.key = self.group.keys(1)
    self.rows, self.keep = self.group.rows(0, self.phase, self.state, self.key, 0)
    self.clock = Clock(*(jax.numpy.int32(v) for v in (0, 0, 0, self.rows.shape[0], 1)))

  def lap(self) -> float:
    """Seconds per step of one epoch."""
    began = time.perf_counter()
    self.state, metrics = self.group.epoch(
        self.phase, self.state, self.rows, self.keep, self.key, self.clock)
    jax.block_until_ready(metrics)
    return (time.perf_counter() - began) / self.rows.shape[0]
