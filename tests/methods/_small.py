"""The small problem that the tests of this package share, and its fits, each made once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import data, train
from mmfuse.core import Batch, Clock
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion
from mmfuse.methods import METHODS

NAMES = "abcde"
CLASSES = 3
ROWS, BATCH = 48, 16
BUILDERS = {
  name: METHODS[name]
  for name in (
    "mmcosine",
    "umt",
    "lfm",
    "opm",
    "amco",
    "reconboost",
    "linear_probe",
    "valuation_sample",
    "valuation_modality",
    "gblending",
  )
}


def model(num=2, norm="none"):
  return LateFusion({m: MLP(3, (), norm) for m in NAMES[:num]}, CLASSES)


@functools.cache
def splits(num=2, validation=12):
  """48 learnable training rows; of several modalities each is absent in a tenth of the rows."""
  rng = np.random.default_rng(0)
  total = ROWS + validation + 3
  label = np.arange(total) % CLASSES
  arrays = {"label": label, "split": np.repeat([0, 1, 2], [ROWS, validation, 3])}
  for i, m in enumerate(NAMES[:num]):
    arrays[m] = (np.eye(3)[label] * (2 - 0.3 * i) + rng.normal(size=(total, 3))).astype(np.float32)
    if num > 1:
      arrays[f"mask_{m}"] = np.arange(total) % 10 != i
  return data.from_arrays(arrays)


def hooks(num=2):
  """What `fit` hands to hooks."""
  found = splits(num)
  return {"train": found.train, "validation": found.validation}


def batch(num=2, absent=()) -> Batch:
  """The first training rows; `absent`: modalities that no row has."""
  whole = train.to_batch(splits(num).train)
  mask = {m: v & (m not in absent) for m, v in whole.mask.items()}
  return jax.tree.map(lambda x: jnp.asarray(x[:BATCH]), whole._replace(mask=mask))


def hour(epoch=0, epochs=4):
  """The clock of a hook: `epoch` are done."""
  return Clock(3 * epoch, epoch, 0, 3, epochs)


def clock(epoch=0, batch=0, batches=3, epochs=4):
  return Clock(*(jnp.int32(v) for v in (epoch * batches + batch, epoch, batch, batches, epochs)))


def start(method, num=2):
  return train.initial(method, jax.random.key(0), batch(num), ROWS)


def finite(tree):
  return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


@functools.cache
def fitted(name, num, epochs=2):
  """The log of one run."""
  method = BUILDERS[name](model(num), 0.1)
  result = train.fit(
    method, splits(num), epochs=epochs, batch_size=BATCH, loop="scan", diagnose=False
  )
  return result
