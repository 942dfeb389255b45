"""A method on a part of a larger state: what `parts` and `with_head` are made of.

A lens has `take(state) -> State`, the method's own, and `put(state, own) -> State`. All that is made
here compares by value where lens and method do, so that compiled predictions are shared.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from mmfuse.core import Method, Phase, State

FROZEN = "frozen"  # where the memory of a part shows it the parts that it may read and not move


class Lens(Protocol):
  """Where a method's state lies in a larger one."""

  def take(self, state: State) -> State:
    """The method's own state."""

  def put(self, state: State, own: State) -> State:
    """`state` with the method's own replaced."""


@dataclasses.dataclass(frozen=True)
class _Reads:
  """A function of the method's own state: predictions, `rows`, diagnostics."""

  lens: Any
  function: Callable[..., Any]

  def __call__(self, state: State, *args: Any, **kwargs: Any) -> Any:
    return self.function(self.lens.take(state), *args, **kwargs)


@dataclasses.dataclass(frozen=True)
class _Step:
  lens: Any
  step: Callable[..., Any]

  def __call__(self, state: State, batch, key, clock):
    own, log = self.step(self.lens.take(state), batch, key, clock)
    return self.lens.put(state, own), log


@dataclasses.dataclass(frozen=True)
class _Hook:
  lens: Any
  hook: Callable[..., State]

  def __call__(self, state: State, splits, key, clock):
    return self.lens.put(state, self.hook(self.lens.take(state), splits, key, clock))


def lift(method: Method, lens: Lens) -> Method:
  """`method` (but for `init`) on the state in which `lens` finds its own."""

  def optional(kind, function):
    return None if function is None else kind(lens, function)

  def phase(p: Phase) -> Phase:
    return p._replace(
      step=_Step(lens, p.step),
      begin=optional(_Hook, p.begin),
      epoch_end=optional(_Hook, p.epoch_end),
      rows=optional(_Reads, p.rows),
      predict=optional(_Reads, p.predict),
    )

  functions = {k: _Reads(lens, f) for k, f in method.functions.items()}
  phases = tuple(phase(p) for p in method.phases)
  return method._replace(predict=_Reads(lens, method.predict), phases=phases, functions=functions)
