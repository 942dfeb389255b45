"""How long a run is where nobody said: batch and epochs from the number of training rows."""

import math
from typing import NamedTuple

BATCH = (8, 64)  # least and most rows a step
FEW_STEPS = 8  # steps of an epoch, where the smallest batch allows
EPOCHS = 30  # of a set that is neither small nor large
LEAST_STEPS, MOST_STEPS = 450, 10_000  # of a run, all its phases
LEAST_EPOCHS = 5  # whatever MOST_STEPS says


class Budget(NamedTuple):
  """Rows a step and passes over the training rows."""

  batch_size: int  # rows of a step
  epochs: int  # passes over the training rows
  steps: int  # of the whole run
  epoch_steps: int  # of an epoch; the last batches are padded


def steps_per_epoch(rows: int, batch_size: int) -> int:
  """ceil(rows / B): every row is seen, the last batches are padded."""
  return -(-rows // max(1, min(batch_size, rows)))


def budget(rows: int, batch_size: int | None = None, epochs: int | None = None) -> Budget:
  """The budget for `rows` training rows; what is given is kept as it is.

  Args:
    rows: of the training split.
    batch_size: default: the largest power of two that leaves 8 steps an epoch, within 8..64.
    epochs: default: 30; more where that is fewer than 450 steps, fewer (at least 5) where it is more
      than 10,000. Both defaults were chosen on the panel of docs/decisions.md.
  """
  if batch_size is None:
    fitting = 2 ** int(math.log2(max(1, rows // FEW_STEPS)))
    batch_size = min(max(fitting, BATCH[0]), BATCH[1])
  each = steps_per_epoch(rows, batch_size)
  if epochs is None:
    epochs = max(EPOCHS, -(-LEAST_STEPS // each))
    epochs = min(epochs, max(LEAST_EPOCHS, MOST_STEPS // each))
  return Budget(batch_size, epochs, epochs * each, each)
