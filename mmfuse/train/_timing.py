"""Step times of several methods, interleaved, so that a drifting machine moves them all alike."""

import time
from collections.abc import Mapping
from typing import Any

import jax

from mmfuse.core import Clock, Method
from mmfuse.train import _fit


def interleaved_step_times(
  methods: Mapping[str, Method],
  data: Any,
  *,
  batch_size: int = 64,
  rounds: int = 5,
  budget: float = 60.0,
  least: int = 3,
) -> dict[str, list[float]]:
  """{name: seconds per step of each round}: one epoch of each method in turn, after a warm-up.

  The programs are those of `fit`, found again where they are compiled. `budget`: seconds after
  which no further round is begun, but for the first `least` ones: a median of less is no median.
  """
  racers = {name: _Racer(method, data, batch_size) for name, method in methods.items()}
  for racer in racers.values():
    racer.lap()
  times: dict[str, list[float]] = {name: [] for name in racers}
  began = time.perf_counter()
  for done in range(rounds):
    if done >= least and time.perf_counter() - began > budget:
      break
    for name, racer in racers.items():
      times[name].append(racer.lap())
  return times


class _Racer:
  """A method's phases, each ready to run an epoch at a time."""

  def __init__(self, method: Method, data: Any, batch_size: int):
    plan = _fit.make_plan(method, data, epochs=1, batch_size=batch_size)
    splits = {"train": data.train, "validation": data.validation}
    self.runs = [_Phase(plan, number, splits) for number in range(len(method.phases))]
    self.shares = [p.share for p in method.phases]

  def lap(self) -> float:
    """Seconds per step of one epoch, over the phases by their share of the budget."""
    times = [run.lap() for run in self.runs]
    return sum(s * t for s, t in zip(self.shares, times)) / sum(self.shares)


class _Phase:
  """One phase of a method, begun from its initial state."""

  def __init__(self, plan: _fit.Plan, number: int, splits: dict[str, Any]):
    self.phase = plan.method.phases[number]
    self.group = _fit.Group(plan, [(0, None)])
    keys = self.group.phase_keys(number)
    self.key = keys.steps
    self.state = self.group.initial()
    if self.phase.begin is not None:
      self.state = self.group._own(
        self.phase.begin(self.state, splits, keys.begin, self.group.hour(self.phase))
      )
    self.rows, self.keep = self.group.rows(number, self.phase, self.state, keys.rows, 0, splits)
    self.clock = Clock(*(jax.numpy.int32(v) for v in (0, 0, 0, self.rows.shape[0], 1)))

  def lap(self) -> float:
    """Seconds per step of one epoch."""
    began = time.perf_counter()
    self.state, metrics = self.group.epoch(
      self.phase, self.state, self.rows, self.keep, self.key, self.clock
    )
    jax.block_until_ready(metrics)
    return (time.perf_counter() - began) / self.rows.shape[0]
