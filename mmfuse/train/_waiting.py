"""Whether an optimiser may hold an update back, to make it in a later step."""

from collections.abc import Mapping
from typing import Any

# States of transforms that give an update in the step of its gradient, beside Optax's `ScaleBy...` and our
# own. Any other may wait: `MultiSteps`, `apply_every`, and whatever a user's transform keeps.
STEADY = ("EmptyState", "TraceState")
# States around the state of another transform, and where they hold it.
AROUND = {
  "InjectHyperparamsState": "inner_state",
  "InjectStatefulHyperparamsState": "inner_state",
  "MaskedState": "inner_state",
  "PartitionState": "inner_states",
  "Unsearched": "unsearched",
}


def waits(state: Any) -> bool:
  """Whether a transform of this state may give zeros now for a gradient that moves something later."""
  kind = type(state)
  home, name = kind.__module__.split(".")[0], kind.__name__
  if state is None:
    return False
  if kind is tuple:  # of a chain; what is not known among its links stands for a user's own
    return any(map(waits, state))
  if home not in ("mmfuse", "optax"):
    return True
  if name in AROUND:
    inner = getattr(state, AROUND[name])
    return any(map(waits, inner.values())) if isinstance(inner, Mapping) else waits(inner)
  return home == "optax" and name not in STEADY and not name.startswith("ScaleBy")
