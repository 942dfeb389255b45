"""Networks and optimisers of what MMANet and DMRNet were trained on.

Wei, Luo and Luo, CVPR 2023 (CASIA-SURF, CeFA); Wei, Luo, Wang and Luo, ECCV 2024 (the same, CREMA-D): the
numbers are those of the authors' code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import train
from mmfuse.encoders import ResNet18, SEResNet18Stem
from mmfuse.fusion import LateFusion, Trunk

__all__ = ["Recipe", "audio_visual", "casia_surf", "warm_up_and_steps"]


class Recipe(NamedTuple):
  """What a method of missing modalities is built from."""

  model: LateFusion  # of all methods and of MMANet's teacher
  tx: optax.GradientTransformation  # of all of its parameters
  epochs: int  # of each phase
  batch_size: int  # rows of a step


def warm_up_and_steps(
  epoch: jax.Array, epochs: jax.Array, *, warm_up: int = 5, gamma: float = 0.1
) -> jax.Array:
  """Factor of the learning rate in an epoch, from 0, as the released scheduler gives it.

  min(max(epoch - 1, 0) / warm_up, 1) gamma^k, where k of the epochs n + warm_up + 1, n = epochs // 6, // 3
  and // 2, have begun. So 0 in the first two epochs, in which batch statistics alone move.

  Args:
    epoch, epochs: of the phase.
    warm_up: default 5.
    gamma: default .1.
  """
  begun = [epoch >= epochs // part + warm_up + 1 for part in (6, 3, 2)]
  steps = sum(jnp.asarray(b, jnp.float32) for b in begun)
  return jnp.clip((epoch - 1) / warm_up, 0.0, 1.0) * gamma**steps


def casia_surf(
  modalities: Sequence[str] = ("depth", "ir", "rgb"), num_classes: int = 2, *, rate: float = 1e-3
) -> Recipe:
  """Three SE-ResNet-18 stems and a shared trunk, for images of 112 x 112.

  SGD, Nesterov momentum .9, weight decay 5e-4, `warm_up_and_steps`; batches of 64, 100 epochs.

  Args:
    modalities: default depth, infrared and colour.
    num_classes: default 2, live or attack.
    rate: default .001.
  """
  model = LateFusion({m: SEResNet18Stem() for m in modalities}, num_classes, Trunk())
  return Recipe(model, _sgd(rate, 5e-4, warm_up_and_steps, nesterov=True), 100, 64)


def audio_visual(num_classes: int = 6, *, rate: float = 1e-3) -> Recipe:
  """A ResNet-18 on "audio" (257 x 188 for CREMA-D) and one on "visual" (a frame, 224 x 224 x 3).

  Their averages over positions are put side by side under a linear head. SGD, momentum .9, weight
  decay 1e-4, a tenth of the rate after 70 of 100 epochs; batches of 64.

  Args:
    num_classes: default 6, CREMA-D's.
    rate: default .001.
  """
  model = LateFusion({m: ResNet18() for m in ("audio", "visual")}, num_classes)
  return Recipe(model, _sgd(rate, 1e-4, _step_at_70, nesterov=False), 100, 64)


def _step_at_70(epoch: jax.Array, epochs: jax.Array) -> jax.Array:
  return jnp.where(10 * epoch < 7 * epochs, 1.0, 0.1)


def _sgd(rate: float, decay: float, factor, *, nesterov: bool):
  return optax.chain(
    optax.add_decayed_weights(decay),
    optax.trace(decay=0.9, nesterov=nesterov),
    train.scale_by_epoch(factor),
    optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate=rate),
  )
