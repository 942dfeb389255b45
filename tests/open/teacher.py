"""Distillation from a teacher of another architecture, which sees what the student's step drops."""

import jax
import jax.numpy as jnp

from mmfuse import objectives, train
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion, Sum


def method(classes=3, learning_rate=0.1, temperature=2.0):
  wide = LateFusion({m: MLP(16, (16, 16)) for m in "ab"}, classes, Sum())
  teacher = train.supervised(wide, objectives.fused, train.sgd(learning_rate))

  def distil(outputs, batch, complete, frozen, **extra):
    said = teacher.predict(frozen["teacher"], complete.inputs, complete.mask).logits
    target = jax.nn.softmax(said / temperature)
    rows = -(target * jax.nn.log_softmax(outputs.logits / temperature)).sum(-1)
    mean = (batch.weight * rows).sum() / jnp.maximum(batch.weight.sum(), 1)
    return {**objectives.fused(outputs, batch, **extra), "distil": temperature**2 * mean}

  small = LateFusion({m: MLP(4) for m in "ab"}, classes)
  student = train.supervised(small, distil, train.sgd(learning_rate))
  return train.parts(
    {"teacher": teacher, "student": student}, predict="student", freeze=("teacher",)
  )
