"""What every method is measured by: the fused loss, the sum of all losses, one modality alone."""

from typing import Any

import optax

from mmfuse import objectives, train
from mmfuse.core import Method


def joint(model: Any, tx: optax.GradientTransformation) -> Method:
  """The fused loss alone.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
  """
  return train.supervised(model, objectives.fused, tx)


def plain_sum(model: Any, tx: optax.GradientTransformation) -> Method:
  """The plain sum of the fused and all uni-modal losses.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
  """
  return train.supervised(model, objectives.fused_and_unimodal, tx)


def single(model: Any, tx: optax.GradientTransformation, *, modality: str | None = None) -> Method:
  """One modality alone: its encoder and its head.

  Args:
    model: a `core.Model` that can be restricted.
    tx: the optimiser of all its parameters.
    modality: a name, default the first in sorted order.

  Raises:
    ValueError: (of `restrict`) a modality that the model does not have.
  """
  modality = sorted(model.modalities)[0] if modality is None else modality
  return train.supervised(
    model.restrict((modality,)),
    objectives.unimodal,
    tx,
    predict=lambda o, mask: o._replace(logits=o.unimodal_logits[modality]),
  )
