"""What the tests that walk the index tell a row: what it must know, and sizes that compile fast."""

from typing import Any

# Of a problem of the modalities a, b and, where there is a third, c.
TOLD: dict[str, dict[str, Any]] = {
  "modality_distillation": {"available": "b", "privileged": "a"},
}
# One layer says what three say, and compiles in a third of the time.
SHALLOW: dict[str, dict[str, Any]] = {
  "mult": {"layers": 1, "memory_layers": 1},
  "bottleneck": {"layers": 2, "fusion_layer": 0, "width": 8},
  "perceiver": {"layers": 1, "width": 8},
  "missing_prediction": {"layers": 1, "features": 8, "heads": 2},
  "shared_trunk": {"members": 2, "width": 3},
  "deep_ensemble": {"members": 2},
  "dibs": {"members": 2, "width": 3, "hidden": (4,)},
  "diverse": {"width": 2, "hidden": (4,), "critic_steps": 1},
  "unseen_interaction": {"layers": 1, "width": 8, "heads": 2, "slots": 2},
  "wss_cmer": {"width": 1, "levels": 2},
}
# Rows of images, [3, 3, 1] where others are told vectors.
IMAGES = ("wss_cmer",)
SIDE = 3


def options(name: str) -> dict[str, Any]:
  """Of the row of that name."""
  return {**SHALLOW.get(name, {}), **TOLD.get(name, {})}


def shape(name: str, vector: int) -> tuple[int, ...]:
  """Of a row's inputs: vectors of that length, or images."""
  return (SIDE, SIDE, 1) if name in IMAGES else (vector,)
