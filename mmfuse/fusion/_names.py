"""Fusion modules by name."""

import difflib

import flax.linen as nn

from mmfuse.fusion._concat import Concat
from mmfuse.fusion._cosine import Cosine
from mmfuse.fusion._gated import FiLM, Gated
from mmfuse.fusion._mmtm import Mmtm
from mmfuse.fusion._sum import Sum

NAMES: dict[str, type[nn.Module]] = {
  "concat": Concat, "sum": Sum, "gated": Gated, "film": FiLM, "cosine": Cosine, "mmtm": Mmtm}


def by_name(spec: str) -> nn.Module:
  """The fusion called `spec`, one of `NAMES`. Raises ValueError naming the closest."""
  if spec not in NAMES:
    close = difflib.get_close_matches(spec, NAMES, 1, 0.0)[0]
    raise ValueError(
        f"unknown fusion {spec!r}; did you mean {close!r}? (there are {', '.join(NAMES)})")
  return NAMES[spec]()
