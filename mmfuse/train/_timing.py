"""Step times of several methods, interleaved, so that a drifting machine moves them all alike."""

import time
from collections.abc import Mapping
from typing import Any

import jax

from mmfuse.core import Method
from mmfuse.train._plan import Plan, make_plan
from mmfuse.train._run import Group


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

  The programs are those of `fit`, found again where they are compiled.

  Args:
    methods: {name: method}.
    data: `data.Splits`.
    batch_size: rows a step, default 64.
    rounds: laps of each method, default 5.
    budget: seconds after which no further round is begun, default 60.
    least: rounds that are run whatever they take, default 3: a median of less is no median.
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
    plan = make_plan(method, data, epochs=1, batch_size=batch_size)
    self.runs = [_Phase(plan, number) for number in range(len(method.phases))]
    self.shares = [p.share for p in method.phases]

  def lap(self) -> float:
    """Seconds per step of one epoch, over the phases by their share of the budget."""
    times = [run.lap() for run in self.runs]
    return sum(s * t for s, t in zip(self.shares, times)) / sum(self.shares)


class _Phase:
  """One phase of a method, begun from its initial state."""

  def __init__(self, plan: Plan, number: int):
    self.group = Group(plan, [(0, None)])
    self.stage = self.group.stage(number)
    self.state = self.group.begin(self.stage, self.group.initial())
    self.fed = self.group.fed(self.stage, self.state, 0)

  def lap(self) -> float:
    """Seconds per step of one epoch."""
    began = time.perf_counter()
    self.state, metrics = self.group.steps(self.stage, self.state, self.fed)
    jax.block_until_ready(metrics)
    return (time.perf_counter() - began) / self.fed.rows.shape[0]
