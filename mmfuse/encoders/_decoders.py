"""Decoders: a latent in, what one modality looks like out; mirrored from its encoder."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from mmfuse.core import Unavailable
from mmfuse.encoders._conv2d import LEAST, SIDE, Conv2D
from mmfuse.encoders._embedding import Embedding
from mmfuse.encoders._mlp import MLP
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._up_conv import UpConv


class MLPDecoder(nn.Module):
  """z [N, L] -> [N, *shape]: (dense, norm, ReLU) per width, then a dense layer, reshaped.

  Args:
    shape: of a row of the output.
    hidden: widths, default (64,); defaults are ours.
    norm: "layer" (default) or "none", see `Norm`.
  """

  shape: Sequence[int]
  hidden: Sequence[int] = (64,)
  norm: str = "layer"

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    for i, width in enumerate(self.hidden):
      z = _block(nn.Dense(width, name=f"dense{i}")(z), self.norm, f"norm{i}")
    return nn.Dense(math.prod(self.shape), name="out")(z).reshape(z.shape[0], *self.shape)


class ConvDecoder(nn.Module):
  """z [N, L] -> an image [N, H, W, C] (or [N, H, W]): `Conv2D` backwards.

  A dense layer to the smallest map, then per width, the last first: a transposed convolution where the
  encoder's halved an axis, else a convolution; norm and ReLU but at the end. Images with a side of 2 x
  `side` or more come out in the patches that the encoder cuts them into.

  Args:
    shape: of the image, two or three axes.
    widths, kernel, stride, side: those of the encoder, default (32, 64), 3, 2, 32.
    norm: "layer" (default) or "none".
    least: positions of an axis below which the encoder does not halve it, default 8.
  """

  shape: Sequence[int]
  widths: Sequence[int] = (32, 64)
  kernel: int = 3
  stride: int = 2
  norm: str = "layer"
  side: int = SIDE
  least: int = LEAST

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    channels = self.shape[2] if len(self.shape) == 3 else 1
    patch = tuple(max(1, n // self.side) for n in self.shape[:2])
    sizes = [tuple(-(-n // p) for n, p in zip(self.shape, patch))]
    for _ in self.widths:
      sizes.append(tuple(-(-n // self.stride) if n >= self.least else n for n in sizes[-1]))
    x = nn.Dense(math.prod(sizes[-1]) * self.widths[-1], name="dense")(z)
    x = x.reshape(z.shape[0], *sizes[-1], self.widths[-1])
    # Narrow maps of many rows: on CPU [C, h, w, N] has the longer rows of numbers.
    last = jax.default_backend() == "cpu"
    x = x.transpose(3, 1, 2, 0) if last else x
    channel = 0 if last else -1
    x = _block(x, self.norm, "norm", channel)
    cut = patch != (1, 1)
    ends = (self.widths[0] if cut else channels, *self.widths[:-1])
    for i in reversed(range(len(self.widths))):
      x = UpConv(ends[i], self.kernel, sizes[i], last, name=f"conv{i}")(x)
      x = _block(x, self.norm, f"norm{i}", channel) if i or cut else x
    x = x.transpose(3, 1, 2, 0) if last else x
    if cut:
      x = nn.Dense(math.prod(patch) * channels, name="stem")(x)
      x = x.reshape(*x.shape[:3], *patch, channels).transpose(0, 1, 3, 2, 4, 5)
      x = x.reshape(x.shape[0], sizes[0][0] * patch[0], sizes[0][1] * patch[1], channels)
      x = x[:, : self.shape[0], : self.shape[1]]
    return x if len(self.shape) == 3 else x[..., 0]


def _block(x: jax.Array, norm: str, name: str, channel: int = -1) -> jax.Array:
  return nn.relu(Norm(norm, channel, name=name)(x, None, train=False))


def mirrored(encoder: Any, shape: Sequence[int]) -> nn.Module:
  """The decoder of rows of `shape` that mirrors an encoder: its widths backwards.

  `Conv2D` has a `ConvDecoder`, anything else an `MLPDecoder`: of an `MLP` with its widths, else with two
  layers of 64. Norms are per row ("layer"), where the encoder has any. An encoder with a method
  `mirror(shape)` (of a Linen class under `nn.nowrap`) says itself what it is: any Linen module
  `z [N, L] -> [N, *shape]`.
  """
  shape = tuple(int(n) for n in shape)
  if hasattr(encoder, "mirror"):
    own: nn.Module = encoder.mirror(shape)
    return own
  norm = "none" if getattr(encoder, "norm", "layer") == "none" else "layer"
  if isinstance(encoder, Conv2D) and len(shape) in (2, 3):
    options = {n: getattr(encoder, n) for n in ("kernel", "stride", "side")}
    return ConvDecoder(shape, tuple(encoder.widths), norm=norm, **options)
  if isinstance(encoder, MLP):
    return MLPDecoder(shape, (encoder.features, *reversed(tuple(encoder.hidden))), norm)
  return MLPDecoder(shape, (64, 64), norm)


def token_classes(encoder: Any, modality: str) -> int:
  """How many tokens a decoder tells apart: the encoder's vocabulary and "unknown".

  Raises Unavailable for an encoder that does not say its vocabulary.
  """
  if not isinstance(encoder, Embedding):
    raise Unavailable(f"{modality!r} holds tokens, and its encoder does not say how many there are")
  return encoder.vocabulary + 1
