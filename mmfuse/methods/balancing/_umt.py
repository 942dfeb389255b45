"""UMT: encoders that keep the features of their uni-modal teachers.

Du, Teng, Li, Liu, Yuan, Wang, Yuan and Zhao, On Uni-Modal Feature Learning in Supervised
Multi-Modal Learning, ICML 2023.
"""

from typing import Any

import jax.numpy as jnp
import optax

from mmfuse import fusion, objectives, train
from mmfuse.core import Method, Objective
from mmfuse.tree import FUSED


def umt(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  scaling: float = 10.0,
) -> Method:
  r"""Phase "teacher": \sum_m CE(z_m), each modality alone. Phase "train", from the start again:

  L = CE(fused) + scaling \sum_m MSE(h_m^teacher, h_m), with the teachers frozen and in evaluation
  mode. Each phase has half of the epochs, so the examples seen equal those of any other method.
  The teachers that are kept are those of the best epoch by their mean logits. Distances are over
  the rows that have the modality. Any number of modalities, labels of any task.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    scaling: default 10 (BalanceBenchmark).

  Raises:
    ValueError: a negative scaling.
  """
  if scaling < 0:
    raise ValueError(f"scaling must not be negative, got {scaling}")
  names = tuple(sorted(model.modalities))
  teacher = train.supervised(
    model, objectives.unimodal, tx, predict=fusion.mean_logits, name="teacher"
  )

  def apply(outputs, batch, memory, **extra):
    del extra
    variables = {"params": memory["params"], "batch_stats": memory["stats"]}
    features, _ = model.encode(variables, batch.inputs, batch.mask, train=False, rngs=None)
    distances = [
      objectives.feature_distillation(
        outputs.features[m], features[m], jnp.where(batch.mask[m], batch.weight, 0.0)
      )
      for m in names
    ]
    fused = objectives.fused(outputs, batch)[FUSED]
    return {FUSED: fused, "distillation": scaling * sum(distances)}, memory

  student = train.supervised(model, Objective(lambda batch, outputs: (), apply), tx)

  def begin(state, splits, key, clock):
    del splits, key, clock
    taught = train.remember(state, objective=train.weights_of(state))
    return train.restore(taught, state.memory["initial"])

  late = train.only_phase(student)._replace(begin=begin)
  return train.with_memory(
    train.then(teacher, student._replace(phases=(late,)), 0.5),
    lambda state, num_rows: dict.fromkeys(("initial", "objective"), train.weights_of(state)),
  )
