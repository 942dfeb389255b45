"""Batches that hold as many rows of each class."""

import dataclasses

import jax
import numpy as np

from mmfuse.core import Clock, State, label_weight
from mmfuse.train import to_batch

SHARED_BY = 8  # batches are of a multiple of so many rows, which devices can share


def balanced_batches(label: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
  """int [N, B]: as many rows as there are, dealt to N batches class by class; -1 = padding.

  In a batch the numbers of any two classes differ by at most one. A class with more than its share is seen
  in part, another part each time, one with less more than once.

  Args:
    label: int [n], of the rows to deal.
    count: N, at most n.
    rng: of the order.
  """
  classes, of = np.unique(label, return_inverse=True)
  seat = np.arange(len(label)) % len(classes)  # consecutive seats go to one class after the other
  dealt = np.empty(len(label), np.int64)
  turns = rng.permutation(len(classes))
  for place, c in enumerate(turns):
    seats, rows = np.flatnonzero(seat == place), np.flatnonzero(of == c)
    rounds = -(-len(seats) // len(rows))
    dealt[seats] = np.concatenate([rng.permutation(rows) for _ in range(rounds)])[: len(seats)]
  parts = np.array_split(dealt, count)
  size = -(-len(parts[0]) // SHARED_BY) * SHARED_BY
  padded = [np.pad(rng.permutation(p), (0, size - len(p)), constant_values=-1) for p in parts]
  return np.stack(padded).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class BalancedRows:
  """`Phase.rows`: `balanced_batches` of the training rows whose label counts."""

  def __call__(self, state: State, splits, key: jax.Array, clock: Clock):
    del state
    batch = to_batch(splits["train"])
    rows = np.flatnonzero(np.asarray(label_weight(batch)) > 0)
    seed = np.asarray(jax.random.bits(key, (2,))).tolist()
    count = min(int(clock.batches), max(len(rows), 1))
    found = balanced_batches(np.asarray(batch.label)[rows], count, np.random.default_rng(seed))
    return np.where(found < 0, -1, rows[found]), None
