"""What a program costs, as XLA counts it."""

from typing import NamedTuple

import jax


class Cost(NamedTuple):
  """Of one compiled program; NaN where the backend does not say."""

  flops: float  # floating-point operations
  bytes_accessed: float  # read and written, as XLA's cost analysis counts them
  temp_bytes: float  # of temporary buffers
  peak_bytes: float  # temporaries, arguments and results, less what is donated


def cost_of(compiled: jax.stages.Compiled) -> Cost:
  """Of anything compiled: `jax.jit(step).lower(...).compile()`."""
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
