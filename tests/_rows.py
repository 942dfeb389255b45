"""What the tests that walk the index tell a row: what it must know, and sizes that compile fast."""

from typing import Any

from mmfuse import encoders

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
  # A step of .1 along a gradient of length 400 leaves numbers that float32 tells nothing of.
  "umurl": {"hidden": 4, "width": 3, "intra": 0.02, "inter": 0.02, "std": 0.02, "cov": 0.01},
}
# Rows that read nothing but skeletons: of two frames, one person and three joints. Layer norm of a width
# of two is a sign, and batch norm of signs that hardly differ is rounding.
SKELETONS = ("umurl",)
# Rows of images.
IMAGES = ("wss_cmer",)
SKELETON = encoders.Skeleton(4, parents=(0, 0, 1))


def encoders_of(name: str, modalities: str, plain: Any) -> dict[str, Any]:
  """What encodes the modalities of a row's problem: `plain`, but a skeleton where the row needs one."""
  first = {modalities[0]: SKELETON} if name in SKELETONS else {}
  return dict.fromkeys(modalities, plain) | first


def options(name: str) -> dict[str, Any]:
  """Of the row of that name."""
  return {**SHALLOW.get(name, {}), **TOLD.get(name, {})}


def shape(name: str, plain: tuple[int, ...]) -> tuple[int, ...]:
  """Of what it reads; `plain` is that of a vector."""
  if name in SKELETONS:
    return (2, 1, 3, 3)
  return (3, 3, 1) if name in IMAGES else plain
