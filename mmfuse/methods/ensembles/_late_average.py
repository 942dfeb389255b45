"""Late average: independent uni-modal models, averaged at the end."""

from typing import Any

import optax

from mmfuse import fusion, objectives, train
from mmfuse.core import Method, Outputs
from mmfuse.names import CLASSIFICATION


def average_predictions(outputs: Outputs, mask: dict) -> Outputs:
  """log of the mean over present modalities of softmax(z_m) [B, C]; 0 where none is present."""
  return outputs._replace(logits=fusion.mix_experts(outputs.unimodal_logits, mask))


def late_average(
  model: Any, tx: optax.GradientTransformation, *, task: str = CLASSIFICATION
) -> Method:
  """Independent uni-modal models, averaged at the end.

  Args:
    model: a `core.Model`; its fused head is not used.
    tx: the optimiser of all its parameters.
    task: "classification" averages probabilities (default), any other the outputs.
  """
  mean = average_predictions if task == CLASSIFICATION else fusion.mean_logits
  return train.supervised(model, objectives.unimodal, tx, predict=mean)
