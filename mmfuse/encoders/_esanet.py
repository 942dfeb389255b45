"""Pieces of ESANet: a factorised residual block, a stream of five stages, pyramid pooling, an upsampling.

Seichter, Köhler, Lewandowski, Wengefeld and Gross, Efficient RGB-D Semantic Segmentation for Indoor Scene
Analysis, ICRA 2021, from memory; the block is that of ERFNet (Romera et al., T-ITS 2018), pyramid pooling
that of PSPNet (Zhao et al., CVPR 2017).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._segments import shares


class ConvNorm(nn.Module):
  """ReLU(norm(conv(x))) of x [B, H, W, C]; batch norm over the rows of `mask` bool [B]."""

  width: int
  kernel: Sequence[int] = (3, 3)
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    x = Conv(self.width, self.kernel, (self.stride,) * 2, use_bias=False, name="conv")(x)
    return nn.relu(Norm("batch", name="norm")(x, mask, train=train))


class NonBottleneck1D(nn.Module):
  """ReLU(x + f_2(relu(f_1(x)))), f = norm(c_13(relu(c_31(.)))), convolutions 3 x 1 and 1 x 3.

  Of x [B, H, W, C]: 12 C width weights for the 18 of two 3 x 3 convolutions. Where stride or width change
  the shape, x goes through a 1 x 1 convolution and norm.

  Args:
    width: channels of the result.
    stride: of the first pair, default 1.
  """

  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    s, y = self.stride, x
    for i, (high, wide) in enumerate(((s, s), (1, 1))):
      y = nn.relu(Conv(self.width, (3, 1), (high, 1), name=f"tall{i}")(y))
      y = Conv(self.width, (1, 3), (1, wide), use_bias=False, name=f"wide{i}")(y)
      y = Norm("batch", name=f"norm{i}")(y, mask, train=train)
      y = y if i else nn.relu(y)
    if s != 1 or x.shape[-1] != self.width:
      x = Conv(self.width, (1, 1), (s, s), use_bias=False, name="match")(x)
      x = Norm("batch", name="match_norm")(x, mask, train=train)
    return nn.relu(x + y)


class Blocks(nn.Module):
  """`count` blocks `NonBottleneck1D`; the first carries the stride."""

  width: int
  count: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    for i in range(self.count):
      stride = 1 if i else self.stride
      x = NonBottleneck1D(self.width, stride, name=f"block{i}")(x, mask, train=train)
    return x


class PyramidPooling(nn.Module):
  """ReLU(norm(W [x; up(p_1); up(p_2); ...])), p_g = ReLU(norm(W_g mean of x over g x g cells)).

  Of x [B, H, W, C]; C / len(grids) channels for each grid.

  Args:
    width: channels of the result.
    grids: cells of a side, default (1, 5).
  """

  width: int
  grids: Sequence[int] = (1, 5)

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    size, found = x.shape[1:3], [x]
    for g in self.grids:
      cells = [min(g, n) for n in size]
      rows, columns = (jnp.asarray(shares(n, c), x.dtype) for n, c in zip(size, cells))
      pooled = jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)
      own = max(1, x.shape[-1] // len(self.grids))
      pooled = ConvNorm(own, (1, 1), name=f"grid{g}")(pooled, mask, train=train)
      found.append(jax.image.resize(pooled, (len(x), *size, own), "nearest"))
    return ConvNorm(self.width, (1, 1), name="join")(jnp.concatenate(found, -1), mask, train=train)


class Upsample(nn.Module):
  """x [B, h, w, C] to `size` (H, W): nearest pixels, then a 3 x 3 convolution of each channel alone."""

  @nn.compact
  def __call__(self, x: jax.Array, size: Sequence[int]) -> jax.Array:
    channels = x.shape[-1]
    x = jax.image.resize(x, (x.shape[0], *size, channels), "nearest")
    smooth = nn.Conv(channels, (3, 3), feature_group_count=channels, name="smooth")
    return smooth(x)
