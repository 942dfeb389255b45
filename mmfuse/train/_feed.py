"""What every epoch is fed: the order of the rows, what is kept of them, keys and clocks.

All of it is a function of (seed, phase, epoch): a run that is continued sees what it would have seen.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.core import Clock, Phase, State
from mmfuse.train._plan import Plan


def order(seed: int, phase: int, epoch: int, rows: int, batch_size: int) -> np.ndarray:
  """The epoch's batches [N, B]: a function of (seed, phase, epoch), the same for every method.

  Every row once, N = ceil(rows / B). Rows are spread evenly over the batches and each ends in
  padding (-1): one last batch of a row or two would take a whole step at the full rate.
  """
  shuffled = np.random.default_rng([seed, phase, epoch]).permutation(rows).astype(np.int32)
  parts = np.array_split(shuffled, -(-rows // batch_size))
  return np.stack([np.pad(p, (0, batch_size - len(p)), constant_values=-1) for p in parts])


def seen_rows(rows: np.ndarray, runs: int) -> int:
  """How many rows each of the runs saw in the batches [N, (S,) B], padding not counted."""
  return int((np.asarray(rows) >= 0).sum()) // (runs if rows.ndim == 3 else 1)


def clock_at(epoch: int, batches: int, epochs: int) -> Clock:
  """The clock of an epoch's first step; `batches`: of this epoch, `epochs`: of the phase."""
  return Clock(*(jnp.int32(v) for v in (epoch * batches, epoch, 0, batches, epochs)))


class PhaseKeys(NamedTuple):
  """A key for each kind of draw of a phase, [] or [S]."""

  steps: Any  # folded with the step by the step
  begin: Any
  rows: Any  # folded with the epoch, as the two below
  end: Any
  diagnosis: Any

  def at(self, key, epoch: int):
    """`key` of one epoch."""
    fold = lambda k: jax.random.fold_in(k, epoch)
    return jax.vmap(fold)(key) if key.ndim else fold(key)


class Feed:
  """Of one run, or of several as one program, whose keys and orders are stacked."""

  def __init__(self, plan: Plan, seeds: list[int]):
    self.plan, self.seeds = plan, seeds
    keys = [jax.random.key(s) for s in seeds]
    self._key = jnp.stack(keys) if plan.stacked else keys[0]

  def key(self, number: int):
    """The key of initialisation (0) or of a phase (from 1), [S] where runs are stacked."""
    fold = lambda key: jax.random.fold_in(key, number)
    return jax.vmap(fold)(self._key) if self.plan.stacked else fold(self._key)

  def phase_keys(self, number: int) -> PhaseKeys:
    """The streams of phase `number`: no two draws of a phase share one."""
    split = lambda key: tuple(jax.random.split(key, 5))
    key = self.key(number + 1)
    return PhaseKeys(*(jax.vmap(split)(key) if self.plan.stacked else split(key)))

  def hour(self, phase: Phase, epoch: int = 0, batches: int | None = None) -> Clock:
    """The clock of a hook: Python ints, `epoch` of the phase's are done."""
    if batches is None:
      batches = self.plan.steps_per_epoch(phase)
    numbers: Any = (epoch * batches, epoch, 0, batches, self.plan.epochs[phase.name])
    return Clock(*numbers)

  def rows(self, number: int, phase: Phase, state: State, key, epoch: int):
    """-> rows [N, B] (or [N, S, B]) and what is kept of them, of the same shape, or None = all."""
    size = self.plan.batch_size[phase.name]
    if phase.rows is None:
      orders = [order(s, number, epoch, self.plan.num_rows, size) for s in self.seeds]
      return (np.stack(orders, 1) if self.plan.stacked else orders[0]), None
    index, keep = phase.rows(state, self.plan.splits, key, self.hour(phase, epoch))
    index = np.asarray(index)
    if index.size == 0:
      raise ValueError(f"phase {phase.name!r} chose no rows for epoch {epoch}")
    keep = {
      m: np.ones(index.shape, bool) if keep is None else np.asarray(keep[m])
      for m in sorted(self.plan.data.train.mask)
    }
    if index.ndim == 2:  # batches in an order of its own
      return index.astype(np.int32), keep
    batches = order(self.seeds[0], number, epoch, len(index), min(size, len(index)))
    rows = np.where(batches < 0, -1, index[batches]).astype(np.int32)
    return rows, {m: k[batches] for m, k in keep.items()}
