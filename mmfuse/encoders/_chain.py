"""Encoders one after the other."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax


class Chain(nn.Module):
  """x -> stages[-1](... stages[0](x)): each reads what the one before returns, with the same mask.

  stages: at least one Linen module `(x, mask, *, train)`; parameters are under "stages_0",
  "stages_1", ... `Chain((LeNet(3, 3), MLP(100, (), "none")))` is the uni-modal image network of I2M2
  up to its last layer. Raises ValueError for no stage.
  """

  stages: Sequence[nn.Module]

  def __post_init__(self):
    if not self.stages:
      raise ValueError("a chain needs at least one stage, got none")
    super().__post_init__()

  @property
  def features(self) -> int:
    """Output width."""
    return self.stages[-1].features

  @property
  def step_features(self) -> int | None:
    """The width of a step where the last stage keeps steps."""
    return getattr(self.stages[-1], "step_features", None)

  @property
  def reads_lengths(self) -> bool:
    """Whether the first stage takes a `core.Sequence`."""
    return getattr(self.stages[0], "reads_lengths", False)

  @nn.compact
  def __call__(self, x: Any, mask: jax.Array, *, train: bool) -> jax.Array:
    for stage in self.stages:
      x = stage(x, mask, train=train)
    return x
