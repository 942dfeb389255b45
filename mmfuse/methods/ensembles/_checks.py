"""What the builders of ensembles refuse."""

from typing import Any

from mmfuse.core import Unavailable


def check_sizes(**sizes: int) -> None:
  """Raises ValueError, with the name of the option, for a size below 1."""
  for name, size in sizes.items():
    if size < 1:
      raise ValueError(f"{name} must be at least 1, got {size}")


def check_weights(**weights: float) -> None:
  """Raises ValueError, with the name of the option, for a negative weight."""
  for name, weight in weights.items():
    if not weight >= 0:
      raise ValueError(f"{name} must not be negative, got {weight}")


def check_name(model: Any, name: str) -> None:
  """Raises Unavailable where a modality has the name under which the opponent's parameters stand."""
  if name in model.modalities:
    raise Unavailable(
      f"a modality is called {name!r}, which is where the {name} is kept; rename it"
    )
