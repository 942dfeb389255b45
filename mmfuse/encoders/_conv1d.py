"""Convolutions over time: the default encoder of sequences of vectors."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv
from mmfuse.encoders._norm import Norm


class Conv1D(nn.Module):
  """x [B, T, C] -> [B, features]: (convolution, norm, ReLU) per width, then the mean over time.

  pool: "mean" (default), or "none": [B, T', features], the steps that are left, for a fusion that
  attends to them.

  widths default to (32, 64), kernel to 5, norm to "layer" (see `Norm`). Each convolution halves T
  (stride 2, rounded up, so any T >= 1 works): a quarter of the cost of stride 1 on two layers. A
  dense layer follows where `features` (default 64) is not the last width. formulation: see `Conv`.
  """

  features: int = 64
  widths: Sequence[int] = (32, 64)
  kernel: int = 5
  stride: int = 2
  norm: str = "layer"
  formulation: str = "auto"
  pool: str = "mean"

  @property
  def step_features(self) -> int | None:
    """The width of a step where the result is a sequence of them."""
    return self.features if self.pool == "none" else None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    for i, width in enumerate(self.widths):
      conv = Conv(width, (self.kernel,), (self.stride,), use_bias=self.norm != "batch",
                  formulation=self.formulation, name=f"conv{i}")
      x = nn.relu(Norm(self.norm, name=f"norm{i}")(conv(x), mask, train=train))
    if self.pool not in ("mean", "none"):
      raise ValueError(f"pool is 'mean' or 'none', got {self.pool!r}")
    x = jnp.mean(x, 1) if self.pool == "mean" else x
    return x if x.shape[-1] == self.features else nn.Dense(self.features, name="project")(x)
