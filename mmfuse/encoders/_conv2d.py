"""A small convolutional encoder of images and spectrograms of any size."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv, prefer_batch_last
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._segments import grid_means, segment_means
from mmfuse.encoders._sequence import as_array, length_of, steps

SIDE = 32  # positions per axis that the stem leaves, less than twice this
LEAST = 8  # positions of an axis below which a convolution does not halve it
GRID = (4, 4)  # cells of the means
FRAME_SIDE, FRAME_SEGMENTS = 16, 4  # of a frame's encoder, and of the time


def as_image(x: jax.Array) -> jax.Array:
  """x [B, H, W] as [B, H, W, 1]; [B, H, W, C] as it is."""
  x = as_array(x)
  if x.ndim not in (3, 4):
    raise ValueError(f"an image encoder takes [B, H, W] or [B, H, W, C], got shape {list(x.shape)}")
  return x[..., None] if x.ndim == 3 else x


class Conv2D(nn.Module):
  """x [B, H, W, C] or [B, H, W] -> [B, features], for sides from 1 to 512 and beyond.

  Per width: convolution, norm, ReLU. A dense layer follows where `features` is not the width.
  Defaults are ours, chosen on the panel of docs/decisions.md.

  Args:
    features: default 64.
    widths: of the convolutions, default (32, 64).
    kernel: their size, default 3.
    stride: default 2: a convolution halves an axis (rounded up) on which at least 8 positions come
      in, which costs a tenth of stride 1 with a max-pool.
    norm: see `Norm`, default "layer".
    formulation: see `Conv`, default "auto".
    pool: "segments" (default): means over a `grid` of cells, side by side, so that the result tells
      where in the image something is; "mean": over all positions.
    grid: default 4 x 4.
    side: default 32: a side of 2 x `side` or more is first cut into patches of its length // side
      pixels, each mapped to the first width, so that the cost stays that of at most 63 x 63
      positions.
  """

  features: int = 64
  widths: Sequence[int] = (32, 64)
  kernel: int = 3
  stride: int = 2
  norm: str = "layer"
  formulation: str = "auto"
  pool: str = "segments"
  grid: Sequence[int] = GRID
  side: int = SIDE

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    if self.pool not in ("segments", "mean"):
      raise ValueError(f"pool is 'segments' or 'mean', got {self.pool!r}")
    x = as_image(x)
    last = prefer_batch_last(x, (self.kernel,) * 2, self.formulation)
    x = jnp.swapaxes(x, 0, -1) if last else x
    patch = tuple(max(1, n // self.side) for n in x.shape[1:3])
    if patch != (1, 1):
      x = self._block(x, self.widths[0], patch, patch, "stem", last, mask, train)
    for i, width in enumerate(self.widths):
      strides = tuple(self.stride if n >= LEAST else 1 for n in x.shape[1:3])
      x = self._block(x, width, (self.kernel,) * 2, strides, str(i), last, mask, train)
    x = grid_means(x, self.grid if self.pool == "segments" else (1, 1), last)
    return x if x.shape[-1] == self.features else nn.Dense(self.features, name="project")(x)

  def _block(self, x, width, kernel, strides, name, last, mask, train):
    conv = Conv(
      width,
      kernel,
      strides,
      use_bias=self.norm != "batch",
      batch_last=last,
      formulation=self.formulation,
      name=f"conv{name}",
    )
    return nn.relu(
      Norm(self.norm, 0 if last else -1, name=f"norm{name}")(conv(x), mask, train=train)
    )


class Frames(nn.Module):
  """x [B, T, H, W, C] -> [B, features]: `encoder` on every frame, then means over the time.

  segments: equal parts of the time, whose means stand side by side (default 4; 1 = the mean over
  T), of a `core.Sequence` within each row's own length; a dense layer back to the encoder's width
  follows where there are several.
  """

  reads_lengths = True

  encoder: nn.Module
  segments: int = FRAME_SEGMENTS

  @property
  def features(self) -> int:
    """Output width, that of `encoder`."""
    return self.encoder.features

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    (values, valid), length = steps(x), length_of(x)
    rows, frames = valid.shape
    flat = values.reshape(rows * frames, *values.shape[2:])
    h = self.encoder(flat, (valid & mask[:, None]).reshape(-1), train=train)
    h = segment_means(h.reshape(rows, frames, -1), self.segments, length).reshape(rows, -1)
    return h if h.shape[-1] == self.features else nn.Dense(self.features, name="project")(h)
