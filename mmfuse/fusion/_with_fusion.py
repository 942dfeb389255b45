"""Another fusion in the place of a model's own."""

import dataclasses
from typing import Any

from mmfuse import encoders
from mmfuse.core import Unavailable
from mmfuse.fusion._late import LateFusion


def with_fusion(model: Any, fusion: Any, method: str) -> LateFusion:
  """`model` with another fusion; its encoders keep their steps for one that attends to them.

  Args:
    model: a `LateFusion`.
    fusion: the module that takes the place of its fusion.
    method: who asks, for the error.

  Raises:
    Unavailable: a model that has no fusion to replace.
  """
  if not isinstance(model, LateFusion):
    raise Unavailable(
      f"{method} replaces the fusion of a LateFusion model, got a {type(model).__name__}"
    )
  if getattr(fusion, "reads_steps", False):
    steps = {m: encoders.keep_steps(e) for m, e in model.encoders.items()}
    return dataclasses.replace(model, fusion=fusion, encoders=steps)
  return dataclasses.replace(model, fusion=fusion)
