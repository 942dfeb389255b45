"""Mean fill: an absent modality's features are their mean over the training rows that have it."""

from typing import Any

import optax

from mmfuse import fusion, objectives, train
from mmfuse.core import Method


def mean_fill(model: Any, tx: optax.GradientTransformation) -> Method:
  """CE(fused), as `joint`; the head gets the running mean of h_m where modality m is absent.

  The means are those of `fusion.Fill`. Nothing is dropped while training. Any number of modalities,
  labels of any task.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
  """
  filled = fusion.Fill(model, "mean")
  return train.supervised(filled, objectives.fused, tx)
