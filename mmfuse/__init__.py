"""mmfuse: multi-modal learning methods as pure functions in JAX."""

import importlib

__version__ = "0.1.0"

_NAMESPACES = (
  "balancing",
  "core",
  "data",
  "encoders",
  "fusion",
  "masks",
  "methods",
  "metrics",
  "objectives",
  "report",
  "train",
  "tree",
)
__all__ = [*_NAMESPACES, "__version__"]


def __getattr__(name: str):
  """Loads a namespace on first use, so that `mmfuse --help` does not wait for jax."""
  if name in _NAMESPACES:
    return importlib.import_module(f"mmfuse.{name}")
  raise AttributeError(
    f"module 'mmfuse' has no attribute {name!r}; it has: {', '.join(_NAMESPACES)}"
  )


def __dir__():
  return sorted(__all__)
