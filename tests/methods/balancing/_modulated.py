"""Small models, batches and splits of the tests of AGM, PMR, MSLR, MSES, re-learning and greedy."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import data, train
from mmfuse.core import Batch, Clock
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion

NAMES = "abc"
WIDTHS = {"a": 3, "b": 2, "c": 4}
CLASSES = 3


def hour(epoch=0, epochs=4):
  """The clock of a hook: `epoch` are done."""
  return Clock(3 * epoch, epoch, 0, 3, epochs)


def clock(epoch=0, epochs=4):
  return Clock(*(jnp.int32(v) for v in (0, epoch, 0, 1, epochs)))


def model(num=2, norm="none", dropout=0.0, fusion=None):
  encoders = {m: MLP(4, (), norm) for m in NAMES[:num]}
  return LateFusion(
    encoders, CLASSES, **({} if fusion is None else {"fusion": fusion}), dropout=dropout
  )


def batch(num=2, rows=8, absent=(), full=False, seed=0):
  """Some rows lack a modality, unless `full`; `absent`: modalities that every row lacks."""
  rng = np.random.default_rng(seed)
  inputs, mask = {}, {}
  for i, m in enumerate(NAMES[:num]):
    inputs[m] = rng.normal(size=(rows, WIDTHS[m])).astype(np.float32)
    mask[m] = np.full(rows, m not in absent)
    if not full and num > 1:
      mask[m] &= np.arange(rows) % (num + 1) != i
  label = (np.arange(rows) % CLASSES).astype(np.int32)
  return jax.tree.map(
    jnp.asarray,
    Batch(inputs, label, mask, np.ones(rows, np.float32), np.arange(rows, dtype=np.int32)),
  )


def splits(num=2, rows=48, validation=12):
  """Classes that can be learnt; a tenth of the rows lack each modality."""
  rng = np.random.default_rng(3)
  total = rows + validation + 3
  label = np.arange(total) % CLASSES
  arrays = {"label": label, "split": np.repeat([0, 1, 2], [rows, validation, 3])}
  for i, m in enumerate(NAMES[:num]):
    centres = rng.normal(size=(CLASSES, WIDTHS[m])) * 2
    arrays[m] = (centres[label] + rng.normal(size=(total, WIDTHS[m]))).astype(np.float32)
    if num > 1:
      arrays[f"mask_{m}"] = np.arange(total) % 10 != i
  return data.from_arrays(arrays)


def hooks(given):
  """What `fit` hands to hooks."""
  return {"train": given.train, "validation": given.validation}


def without_validation(given):
  """The same, of data that have no validation split."""
  return {"train": given.train, "validation": None}


def fitted(method, num=2, epochs=2):
  """(final state of the one run, its log)."""
  result = train.fit(method, splits(num), epochs=epochs, batch_size=16, diagnose=False)
  return jax.tree.map(lambda x: x[0], result.states), result.logs[0]


def fused_losses(log):
  """The training loss of each epoch."""
  return [entry["loss/fused"] for entry in log.history]


def finite(tree):
  return all(
    np.isfinite(np.asarray(x)).all()
    for x in jax.tree.leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.floating)
  )


def one_step(method, given, state=None, now=None):
  """(state before, state after, log) of one step."""
  before = train.initial(method, jax.random.key(0), given) if state is None else state
  after, log = jax.jit(method.phases[0].step)(
    before, given, jax.random.key(1), clock() if now is None else now
  )
  return before, after, log


def plain():
  """Its step is minus the gradient."""
  return train.sgd(1.0, momentum=0.0)
