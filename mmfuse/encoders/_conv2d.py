"""A small convolutional encoder of images and spectrograms of any size."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv, prefer_batch_last
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._pool import max_pool

SIDE = 64  # positions per axis that the stem leaves, at most twice this


def as_image(x: jax.Array) -> jax.Array:
  """x [B, H, W] as [B, H, W, 1]; [B, H, W, C] as it is."""
  if x.ndim not in (3, 4):
    raise ValueError(f"an image encoder takes [B, H, W] or [B, H, W, C], got shape {list(x.shape)}")
  return x[..., None] if x.ndim == 3 else x


class Conv2D(nn.Module):
  """x [B, H, W, C] or [B, H, W] -> [B, features], for sides from 1 to 512 and beyond.

  Per width: convolution, norm, ReLU, 2 x 2 max-pool (an axis of size 1 stays). A side of 128 or
  more is first cut into patches of side // 64 pixels, each mapped to the first width, so that the
  cost stays that of at most 127 x 127 positions. Then the mean over positions, and a dense layer
  where `features` (default 64) is not the last width. widths default to (32, 64), kernel to 3, norm
  to "layer" (see `Norm`). formulation: see `Conv`.
  """

  features: int = 64
  widths: Sequence[int] = (32, 64)
  kernel: int = 3
  norm: str = "layer"
  formulation: str = "auto"

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    x = as_image(x)
    last = prefer_batch_last(x, (self.kernel,) * 2, self.formulation)
    x = jnp.swapaxes(x, 0, -1) if last else x
    patch = tuple(max(1, n // SIDE) for n in x.shape[1:3])
    if patch != (1, 1):
      x = self._block(x, self.widths[0], patch, patch, "stem", last, mask, train)
    for i, width in enumerate(self.widths):
      x = self._block(x, width, (self.kernel,) * 2, (1, 1), str(i), last, mask, train)
      x = max_pool(x, (2, 2))
    x = jnp.mean(x, (1, 2))
    x = x.T if last else x
    return x if x.shape[-1] == self.features else nn.Dense(self.features, name="project")(x)

  def _block(self, x, width, kernel, strides, name, last, mask, train):
    conv = Conv(width, kernel, strides, use_bias=self.norm != "batch", batch_last=last,
                formulation=self.formulation, name=f"conv{name}")
    return nn.relu(Norm(self.norm, 0 if last else -1, name=f"norm{name}")(conv(x), mask, train=train))


class Frames(nn.Module):
  """x [B, T, H, W, C] -> [B, features]: `encoder` on every frame, then the mean over T."""

  encoder: nn.Module

  @property
  def features(self) -> int:
    """Output width, that of `encoder`."""
    return self.encoder.features

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    rows, frames = x.shape[:2]
    flat = x.reshape(rows * frames, *x.shape[2:])
    h = self.encoder(flat, jnp.repeat(mask, frames), train=train)
    return jnp.mean(h.reshape(rows, frames, -1), 1)
