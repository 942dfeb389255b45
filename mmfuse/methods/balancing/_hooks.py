"""What the hooks between epochs read: rows with a label, a generator of their own."""

from typing import Any

import jax
import numpy as np

from mmfuse import train
from mmfuse.core import Unavailable


def judged_rows(split: Any) -> np.ndarray:
  """Places of the rows whose label counts. Raises Unavailable where there is none."""
  rows = np.flatnonzero(train.judged(split))
  if not len(rows):
    raise Unavailable("it reads labels between epochs, and no row of a part has one")
  return rows


def spread_rows(split: Any, most: int) -> np.ndarray:
  """Up to `most` of the `judged_rows`, evenly spaced: files are often sorted by class."""
  rows = judged_rows(split)
  return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]


def generator(key: jax.Array) -> np.random.Generator:
  """A host generator that depends on `key` alone."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
