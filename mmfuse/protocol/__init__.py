"""The fair protocol: equal trials, selection on validation, paired intervals, sealed test rows."""

import importlib

from mmfuse.protocol._config import Compare
from mmfuse.protocol._config import UsageError

# Loaded on first use: the command line shows its help without waiting for JAX.
_LAZY = {
  "Search": "_search",
  "generate": "_generate",
  "load_table": "_doors",
  "make_model": "_model",
  "predict": "_predict",
  "predict_maps": "_predict_maps",
  "predicted": "_predict_maps",
  "run": "_compare",
}
__all__ = [
  "Compare",
  "Search",
  "UsageError",
  "generate",
  "load_table",
  "make_model",
  "predict",
  "predict_maps",
  "predicted",
  "run",
]


def __getattr__(name: str):
  if name in _LAZY:
    return getattr(importlib.import_module(f"mmfuse.protocol.{_LAZY[name]}"), name)
  raise AttributeError(f"module 'mmfuse.protocol' has no attribute {name!r}")
