"""What hooks read: the validation split, and a function of batches over chosen rows of a split."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mmfuse.core import Batch, Source, State, Unavailable


def validation_of(splits: Mapping[str, Any], method: str) -> Any:
  """The validation split of a hook's. Raises `Unavailable` where the data have none."""
  if splits.get("validation") is None:
    raise Unavailable(f"{method} needs a validation split, and the data have none")
  return splits["validation"]


@functools.partial(jax.jit, static_argnames=("function",))
def _apply(function, state, batch):
  return function(state, batch)


def over_split(
  function: Callable[[State, Batch], Any],
  state: State,
  split: Source,
  rows: np.ndarray | None = None,
  *,
  batch_size: int = 512,
) -> Any:
  """`function(state, batch)` [b, ...] over rows of a split, all of them by default -> [n, ...].

  Compiled once per function: give one that compares by value (a frozen dataclass of the model).
  The optimiser state is left out of what is compiled.

  Args:
    function: of a state and a batch, what it says of each row.
    state: of one run.
    split: any `core.Source`.
    rows: int [n], in the order wanted; None = all.
    batch_size: rows per compiled call, default 512.
  """
  count = len(split) if rows is None else len(rows)
  parts = [
    jax.device_get(_apply(function, state._replace(opt={}), batch))
    for batch in split.batches(batch_size, rows)
  ]
  return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
