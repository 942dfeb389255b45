"""Whether an optimiser may hold an update back, to make it in a later step."""

from typing import Any

import jax
import numpy as np

# States of Optax's that give an update in the step of its gradient, beside `ScaleBy...`: any other one may
# wait (`MultiSteps`, `apply_every`), as may a transform of the user's.
STEADY = (
  "EmptyState",
  "InjectHyperparamsState",
  "InjectStatefulHyperparamsState",
  "MaskedNode",
  "MaskedState",
  "PartitionState",
  "TraceState",
  "WrappedScheduleState",
)


def waits(state: Any) -> bool:
  """Whether a transform of this state may give zeros now for a gradient that moves something later."""
  if state is None or isinstance(state, (jax.Array, np.ndarray, np.generic, int, float)):
    return False
  if isinstance(state, dict):
    return any(map(waits, state.values()))
  if hasattr(state, "_fields"):
    return not _steady(type(state)) or any(map(waits, state))
  return not isinstance(state, (list, tuple)) or any(map(waits, state))


def _steady(kind: type) -> bool:
  home = kind.__module__.split(".")[0]
  known = kind.__name__ in STEADY or kind.__name__.startswith("ScaleBy")
  return home == "mmfuse" or (home == "optax" and known)
