"""A row for `--methods experiments/_wider.py:dropout_wide`: dropout with encoders of twice the width.

What a method with two encoders a modality, as ShaSpec, is to be compared with.
"""

import dataclasses

from mmfuse import methods
from mmfuse.core import Method, Unavailable


@methods.Entry
def dropout_wide(model, tx) -> Method:
  """`dropout` on the model with every MLP encoder's layers doubled."""
  if any(type(e).__name__ != "MLP" for e in model.encoders.values()):
    raise Unavailable("it widens MLP encoders")
  wide = {
    m: e.clone(features=2 * e.features, hidden=tuple(2 * h for h in e.hidden))
    for m, e in model.encoders.items()
  }
  return methods.METHODS["dropout"].build(dataclasses.replace(model, encoders=wide), tx)
