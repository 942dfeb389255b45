"""Comparisons of whole trees, in sentences that name the leaf."""

from typing import Any

import jax
import numpy as np


class MethodError(AssertionError):
  """A method broke the contract; the message says how."""


def _leaves(tree: Any) -> list[tuple[str, Any]]:
  found = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [(jax.tree_util.keystr(p, simple=True, separator="/"), x) for p, x in found]


def _structure(tree: Any) -> Any:
  return jax.tree.structure(tree)


def _numbers(x: Any) -> np.ndarray:
  if jax.dtypes.issubdtype(getattr(x, "dtype", np.dtype(float)), jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  return np.asarray(x)


def same_form(before: Any, after: Any, what: str) -> None:
  """Demands equal structure, shapes, dtypes: one program for all steps, one checkpoint template."""
  old, new = dict(_leaves(before)), dict(_leaves(after))
  if _structure(before) != _structure(after):
    odd = sorted(set(old) ^ set(new))
    raise MethodError(f"{what} changes the structure of the state: {', '.join(odd[:3]) or 'order'}")
  for name, x in old.items():
    if (np.shape(x), x.dtype) != (np.shape(new[name]), new[name].dtype):
      raise MethodError(
        f"{what} makes {name} {new[name].dtype}{list(np.shape(new[name]))}, "
        f"it was {x.dtype}{list(np.shape(x))}"
      )


def demand_finite(tree: Any, what: str) -> None:
  """Demands finite numbers in all leaves of floats."""
  for name, x in _leaves(tree):
    x = _numbers(x)
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
      raise MethodError(f"{what}, {name} is not finite")


def demand_same(a: Any, b: Any, what: str, rtol: float = 0.0) -> None:
  """Demands equal trees: bitwise, or up to `rtol` of the largest entry of a leaf."""
  if _structure(a) != _structure(b):
    raise MethodError(f"{what}: the trees differ")
  for (name, x), (_, y) in zip(_leaves(a), _leaves(b), strict=True):
    x, y = _numbers(x), _numbers(y)
    if rtol and np.issubdtype(x.dtype, np.floating):
      x, y = x.astype(np.float64), y.astype(np.float64)
      most = max(np.abs(y).max(initial=0), 1e-30)
      differ = not np.allclose(x, y, rtol=rtol, atol=1e-6 + rtol * most, equal_nan=True)
    else:
      differ = not np.array_equal(x, y, equal_nan=np.issubdtype(x.dtype, np.floating))
    if differ:
      raise MethodError(f"{what}: {name} differs")


def equal(a: Any, b: Any) -> bool:
  """Whether all leaves are bitwise the same."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(_numbers(x), _numbers(y)) for x, y in pairs)


def demand_moved(before: Any, after: Any, what: str) -> None:
  """Demands that something changed."""
  if equal(before, after):
    raise MethodError(f"{what} change nothing")
