"""A function of batches over chosen rows of a split, for hooks."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from mmfuse.core import Batch, State
from mmfuse.train._evaluate import to_batch


def batches_of(split: Any, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
  """Chosen rows of a split as batches of one shape; the last is padded with rows of weight 0.

  Rows keep their weights; padding has no modality.
  """
  size = min(batch_size, len(rows))
  whole = to_batch(split)
  for start in range(0, len(rows), size):
    chosen = rows[start : start + size]
    index = np.resize(chosen, size)
    batch = jax.tree.map(lambda x, index=index: np.asarray(x)[index], whole)
    real = np.arange(size) < len(chosen)
    mask = {m: v & real for m, v in batch.mask.items()}
    yield batch._replace(weight=batch.weight * real, mask=mask)


@functools.partial(jax.jit, static_argnames=("function",))
def _apply(function, state, batch):
  return function(state, batch)


def over_split(
  function: Callable[[State, Batch], Any],
  state: State,
  split: Any,
  rows: np.ndarray | None = None,
  *,
  batch_size: int = 512,
) -> Any:
  """`function(state, batch)` [b, ...] over rows of a split, all of them by default -> [n, ...].

  Compiled once per function: give one that compares by value (a frozen dataclass of the model).
  The optimiser state is left out of what is compiled.
  """
  rows = np.arange(len(next(iter(split.mask.values())))) if rows is None else rows
  parts = [
    jax.device_get(_apply(function, state._replace(opt={}), batch))
    for batch in batches_of(split, rows, batch_size)
  ]
  return jax.tree.map(lambda *x: np.concatenate(x)[: len(rows)], *parts)
