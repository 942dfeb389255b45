"""The tests every method must pass, ours and yours: `check_method`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import masks
from mmfuse.core import Batch, Clock, Method, Phase, State
from mmfuse.train import _check_fits
from mmfuse.train._check_trees import (
  MethodError,
  demand_finite,
  demand_moved,
  demand_same,
  equal,
  same_form,
)
from mmfuse.train._evaluate import seen, to_batch
from mmfuse.train._initial import check_signatures, initial
from mmfuse.train._plan import without_truth

PADDING = 2  # rows of weight 0 in the batches of the check
HOUR: Any = (0, 0, 0, 2, 8)  # of a hook: Python ints


def check_method(
  method: Method,
  splits: Any,
  *,
  batch_size: int = 8,
  full: bool = False,
  unpadded: bool = True,
) -> None:
  """Checks a method the way the library checks its own, on a few rows of `splits`.

  Of every phase, after its `begin`: the state keeps structure, shapes and dtypes; two steps are one trace,
  finite, and change something; nothing depends on what stands in absent inputs and in rows of weight 0 (NaN
  too) or in place of an unknown label; rows that have a single modality are finite; rows of weight 0
  count nowhere. Of the prediction: all 2^M - 1 subsets are one trace and finite, and what it says of a
  row depends on nothing that is absent and on no other row.

  Args:
    method: any `core.Method`.
    splits: `data.Splits`, whose hooks' splits are the whole ones.
    batch_size: rows of a batch, at least 4, default 8; two of them are padding.
    full: (default False) also trains, for two epochs a phase: a run that was stopped and continued is
      bitwise the uninterrupted one; four devices (if there are as many) and, where no hook runs on the
      host, seeds trained together give what one device and separate seeds give, up to rounding.
    unpadded: (default True) False leaves out the steps without padding, which compile each phase once more.

  Raises:
    MethodError: (an AssertionError) with a sentence that says what broke.
    ValueError: fewer than 4 rows.
    Unavailable: from the method, where it is not defined for these data.
  """
  check_signatures(method)
  problem = Problem(splits, batch_size)
  state = _owned(initial(method, jax.random.key(0), problem.clean(), problem.num_rows))
  for number, phase in enumerate(method.phases):
    state = _check_phase(phase, number, state, problem, unpadded)
  _check_predict(method, state, problem)
  if full:
    _check_fits.check(method, splits, batch_size)


class Problem:
  """Batches of the first rows of a split; each modality is absent from some, the last are padding."""

  def __init__(self, splits: Any, batch_size: int):
    whole = to_batch(splits.train)
    self.num_rows = whole.weight.shape[0]
    size = min(batch_size, self.num_rows)
    if size < 4:
      raise ValueError(f"a method is checked on at least 4 rows, got {size}")
    self.splits = without_truth({"train": splits.train, "validation": splits.validation})
    self.real = np.arange(size) < size - PADDING
    batch = jax.tree.map(lambda x: np.asarray(x)[:size], whole)
    self.names = sorted(batch.mask)
    several = len(self.names) > 1
    mask = {
      m: batch.mask[m] & ~(several & (np.arange(size) % (len(self.names) + 1) == i))
      for i, m in enumerate(self.names)
    }
    self.batch = batch._replace(
      mask=mask, weight=np.where(self.real, np.maximum(batch.weight, 0.5), 0)
    )

  def clean(self) -> Batch:
    """Zeros where nothing counts."""
    mask = {m: v & self.real for m, v in self.batch.mask.items()}
    return self.batch._replace(inputs=masks.fill(self.batch.inputs, mask), mask=mask)

  def dirty(self) -> Batch:
    """NaN, or the largest number, there; rows of weight 0 claim to have all modalities."""
    counts = {m: v & self.real for m, v in self.batch.mask.items()}
    inputs = {
      m: jax.tree.map(lambda x, m=m: _fill(x, ~counts[m], _garbage(x.dtype)), x)
      for m, x in self.batch.inputs.items()
    }
    mask = {m: v | ~self.real for m, v in self.batch.mask.items()}
    return self.batch._replace(inputs=inputs, mask=mask)

  def unpadded(self) -> Batch:
    """The rows that count alone."""
    return jax.tree.map(lambda x: x[self.real], self.clean())

  def single(self) -> Batch:
    """Rows that have one modality each, of those they had."""
    order = np.arange(self.real.shape[0]) % len(self.names)
    clean = self.clean()
    return clean._replace(mask={m: v & (order == i) for i, (m, v) in enumerate(clean.mask.items())})

  def unknown(self) -> tuple[Batch, Batch]:
    """Twice the batch in which every third label is unknown, with other labels in their place."""
    known = np.arange(self.real.shape[0]) % 3 != 1
    first, other = _two_rows(self.batch.label)
    written = [
      jax.tree.map(lambda y, row=row: _fill(y, ~known, y[row]), self.batch.label)
      for row in (first, other)
    ]
    one, two = (self.clean()._replace(labelled=known, label=label) for label in written)
    return one, two


def _two_rows(label: Any) -> tuple[int, int]:
  """The first row, and the first one with another label, if there is one."""
  leaves = [np.asarray(y).reshape(len(y), -1) for y in jax.tree.leaves(label)]
  differ = np.array([any((y[i] != y[0]).any() for y in leaves) for i in range(len(leaves[0]))])
  return 0, int(np.argmax(differ))


def _garbage(dtype) -> Any:
  return np.nan if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max // 2


def _fill(x: np.ndarray, where: np.ndarray, value: Any) -> np.ndarray:
  return np.where(where.reshape(-1, *(1,) * (x.ndim - 1)), value, x).astype(x.dtype)


class _Counted:
  """A compiled function that counts its traces."""

  def __init__(self, function: Callable[..., Any]):
    self.traces = 0

    def run(*args):
      self.traces += 1
      return function(*args)

    self.run = jax.jit(run)

  def __call__(self, *args: Any) -> Any:
    return self.run(*args)  # what it returns goes in again, weak types included, as in `fit`

  def demand_one(self, what: str) -> None:
    if self.traces != 1:
      raise MethodError(f"{what} was traced {self.traces} times for arguments of one form")


def _owned(state: State) -> State:
  return jax.tree.map(jnp.array, state)


def _clock(step: int) -> Clock:
  return Clock(*(jnp.int32(v) for v in (step, step // 2, step % 2, 2, 8)))


def _check_phase(
  phase: Phase, number: int, state: State, problem: Problem, unpadded: bool
) -> State:
  """The state after the phase's hooks and two steps."""
  what, key = f"phase {phase.name!r}", jax.random.key(number + 1)
  entered = state
  if phase.begin is not None:
    state = _hooked(phase.begin, f"begin of {what}", state, problem, key, Clock(*HOUR))
  step = _Counted(phase.step)

  def two(batch: Batch):
    middle, first = step(state, batch, key, _clock(2))
    same_form(state, middle, f"a step of {what}")
    after, second = step(middle, batch, jax.random.fold_in(key, 1), _clock(5))
    return {"state": after, "log": [first, second]}

  plain = two(problem.clean())
  step.demand_one(f"the step of {what}")
  demand_finite(_said(plain), f"after two steps of {what}")
  if equal(entered.params, state.params):  # a closed form is done when its phase begins
    demand_moved(state, plain["state"], f"two steps of {what}")
  demand_same(plain, two(problem.dirty()), f"{what} depends on absent inputs or padding")
  if problem.batch.label is not None:
    one, other = (two(b) for b in problem.unknown())
    demand_same(one, other, f"{what} depends on the label of a row that has none")
  alone = two(problem.single())
  demand_finite(_said(alone), f"with one modality a row, after two steps of {what}")
  if unpadded:
    fewer = two(problem.unpadded())
    demand_same(plain, fewer, f"{what} counts rows of weight 0", rtol=1e-5)
  after = plain["state"]
  if phase.epoch_end is not None:
    done = Clock(*HOUR)._replace(step=2, epoch=1)  # type: ignore[arg-type]
    after = _hooked(phase.epoch_end, f"epoch_end of {what}", after, problem, key, done)
  if phase.rows is not None:
    index, _ = phase.rows(after, problem.splits, key, Clock(*HOUR))
    _check_rows(np.asarray(index), problem.num_rows, what)
  return after


def _said(run: Mapping[str, Any]) -> Mapping[str, Any]:
  """What must be finite: an optimiser's or a rule's own state need not be."""
  return {"params": run["state"].params, "log": run["log"]}


def _hooked(hook, what: str, state: State, problem: Problem, key, hour: Clock) -> State:
  after = _owned(hook(state, problem.splits, key, hour))
  same_form(state, after, what)
  return after


def _check_rows(index: np.ndarray, num_rows: int, what: str) -> None:
  least = -1 if index.ndim == 2 else 0  # ready batches are padded with -1
  if not index.size or index.min() < least or index.max() >= num_rows:
    raise MethodError(f"rows of {what} chose rows outside 0..{num_rows - 1}, or none")


def _check_predict(method: Method, state: State, problem: Problem) -> None:
  predict = _Counted(method.predict)
  state, clean, dirty = seen(state), problem.clean(), problem.dirty()
  for subset in masks.combinations(problem.names):
    keep = _subset(clean.mask, subset)
    plain = predict(state, clean.inputs, keep)
    words = f"the prediction from {' and '.join(subset)}"
    demand_finite(plain, words)
    demand_same(plain, predict(state, dirty.inputs, keep), f"{words} depends on absent inputs")
  rows = clean._replace(inputs=_first_row_alone(clean.inputs))
  pick = lambda outputs: jax.tree.map(lambda x: x[0], outputs)
  one, other = (predict(state, b.inputs, clean.mask) for b in (clean, rows))
  demand_same(pick(one), pick(other), "what is said of a row depends on other rows", rtol=1e-5)
  predict.demand_one("the prediction")


def _subset(mask: Mapping[str, Any], subset: tuple[str, ...]) -> dict[str, Any]:
  return {m: v & (m in subset) for m, v in mask.items()}


def _first_row_alone(inputs: Any) -> Any:
  """The inputs with all rows but the first turned by one."""
  turned = lambda x: np.concatenate([x[:1], np.roll(x[1:], 1, 0)])
  return jax.tree.map(lambda x: turned(np.asarray(x)), inputs)
