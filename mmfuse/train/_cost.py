"""What a step costs, as XLA counts it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.core import Batch, Clock, Method
from mmfuse.train._initial import initial


class Cost(NamedTuple):
  """Of one compiled optimisation step; NaN where the backend does not say."""

  flops: float  # floating-point operations
  bytes_accessed: float  # read and written, as XLA's cost analysis counts them
  temp_bytes: float  # of temporary buffers
  peak_bytes: float  # temporaries, arguments and results, less what is donated


def step_cost(method: Method, batch: Batch, phase: str | None = None) -> Cost:
  """The cost of one step of a method's phase (default: its last) on a batch; compiles it, runs nothing.

  Raises ValueError for a phase that the method does not have.
  """
  found = {p.name: p for p in method.phases}
  if phase is not None and phase not in found:
    raise ValueError(f"the method has no phase {phase!r}; available: {', '.join(found)}")
  step = (method.phases[-1] if phase is None else found[phase]).step
  start = functools.partial(initial, method)
  state = jax.eval_shape(start, jax.random.key(0), batch)
  clock = Clock(*(jnp.zeros((), jnp.int32) for _ in Clock._fields))
  key = jax.eval_shape(lambda: jax.random.key(0))
  compiled = jax.jit(step, donate_argnums=0).lower(state, batch, key, clock).compile()
  return cost_of(compiled)


def cost_of(compiled: jax.stages.Compiled) -> Cost:
  """The same numbers of anything compiled."""
  nothing = float("nan")
  counted = compiled.cost_analysis() or {}
  counted = counted[0] if isinstance(counted, list) else counted
  memory = compiled.memory_analysis()
  size = lambda name: float(getattr(memory, f"{name}_size_in_bytes", nothing))
  peak = size("temp") + size("argument") + size("output") - size("alias")
  return Cost(
    float(counted.get("flops", nothing)),
    float(counted.get("bytes accessed", nothing)),
    size("temp"),
    peak,
  )
