"""A row for `--methods experiments/_wider.py:dropout_wide`: dropout with encoders of twice the width.

What a method with two encoders a modality, as ShaSpec, is to be compared with.
"""

import dataclasses
from typing import Any

from mmfuse import methods
from mmfuse.core import Method, Unavailable

WIDTHS = ("features", "hidden", "widths")  # fields of our encoders that are widths


def widened(encoder: Any) -> Any:
  """The encoder with every width doubled; Unavailable of one that has none of those fields."""
  found = {name: getattr(encoder, name) for name in WIDTHS if hasattr(encoder, name)}
  if not found:
    raise Unavailable(f"it knows no widths of a {type(encoder).__name__} to double")
  twice = lambda v: 2 * v if isinstance(v, int) else tuple(2 * w for w in v)
  return encoder.clone(**{name: twice(v) for name, v in found.items()})


@methods.Entry
def dropout_wide(model, tx) -> Method:
  """`dropout` on the model with every layer of its encoders twice as wide."""
  wide = {m: widened(e) for m, e in model.encoders.items()}
  return methods.METHODS["dropout"].build(dataclasses.replace(model, encoders=wide), tx)
