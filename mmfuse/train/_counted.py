"""What a step sees of a batch: neither padding nor what stands in place of something absent."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Batch, label_weight


def view(modalities: Sequence[str], inputs, mask) -> tuple[dict[str, Any], dict[str, Any]]:
  """The model's modalities of a batch, absent rows zeroed."""
  missing = [m for m in modalities if m not in inputs]
  if missing:
    raise ValueError(
      f"modality {missing[0]!r} not in batch; available: {', '.join(sorted(inputs))}"
    )
  mask = {m: mask[m] for m in modalities}
  return masks.fill({m: inputs[m] for m in modalities}, mask), mask


def counted(modalities: Sequence[str], batch: Batch) -> Batch:
  """What a step sees of a batch: a row of weight 0 has no modality, an unknown label reads 0.

  Absent inputs are zeroed. So neither padding nor what stands in place of a label is ever read.
  Raises ValueError for a modality that is not in the batch.
  """
  real, known = batch.weight > 0, label_weight(batch) > 0
  inputs, mask = view(modalities, batch.inputs, {m: batch.mask[m] & real for m in modalities})

  def select(x):
    x = jnp.asarray(x)
    return jnp.where(known.reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))

  keep = None if batch.keep is None else {m: batch.keep[m] for m in mask}
  return batch._replace(
    inputs=inputs, mask=mask, keep=keep, label=jax.tree.map(select, batch.label)
  )


def is_supervised(label: Any) -> bool:
  """Whether the supervised losses can read the label: an array of rows, of columns, or of maps."""
  if not hasattr(label, "dtype"):
    return False
  return label.ndim <= 2 or (label.ndim == 3 and jnp.issubdtype(label.dtype, jnp.integer))
