"""What hooks read: the validation split, and compiled functions of batches, one or those of a split."""

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


def on_batch(function: Callable[[State, Batch], Any], state: State, batch: Batch) -> Any:
  """`function(state, batch)`, compiled once per function and shape, the optimiser state left out.

  Args:
    function: compares by value (a frozen dataclass of the model), else each new one is compiled.
    state: of one run.
    batch: what it is called with.
  """
  return _apply(function, state._replace(opt={}), batch)


def over_split(
  function: Callable[[State, Batch], Any],
  state: State,
  split: Source,
  rows: np.ndarray | None = None,
  *,
  batch_size: int = 512,
) -> Any:
  """`function(state, batch)` [b, ...] over rows of a split, all of them by default -> [n, ...].

  Compiled as by `on_batch`.

  Args:
    function: of a state and a batch, what it says of each row.
    state: of one run.
    split: any `core.Source`.
    rows: int [n], in the order wanted; None = all.
    batch_size: rows per compiled call, default 512.
  """
  count = len(split) if rows is None else len(rows)
  parts = [
    jax.device_get(on_batch(function, state, batch)) for batch in split.batches(batch_size, rows)
  ]
  return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
