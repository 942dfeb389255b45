"""A U-Net in two halves: maps at several scales of an image, and logits of every pixel from such maps."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv, prefer_batch_last
from mmfuse.encoders._conv2d import as_image
from mmfuse.encoders._norm import Norm

WIDTH, LEVELS = 8, 3


def halved(x: jax.Array) -> jax.Array:
  """The mean of cells of 2 x 2 pixels, [_, ceil(H / 2), ceil(W / 2), _]; odd sides repeat a line."""
  odd = [(0, n % 2) for n in x.shape[1:3]]
  if any(high for _, high in odd):
    x = jnp.pad(x, ((0, 0), *odd, (0, 0)), mode="edge")
  first, high, wide, last = x.shape
  return x.reshape(first, high // 2, 2, wide // 2, 2, last).mean((2, 4))


def doubled(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Every pixel of x [_, h, w, _] as 2 x 2 of them, cut to `size` (H, W): what `halved` came from."""
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)[:, : size[0], : size[1]]


class ConvBlock(nn.Module):
  """Twice a 3 x 3 convolution, norm and ReLU, of x [B, H, W, C], or [C, H, W, B] where `batch_last`.

  Args:
    features: channels of the result.
    norm: see `Norm`.
    formulation: see `Conv`.
    batch_last: default False.
    depth: how many times, default 2.
    kernel_init: see `Conv`.
    views: see `Norm`, default 1.
  """

  features: int
  norm: str = "instance"
  formulation: str = "auto"
  batch_last: bool = False
  depth: int = 2
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
  views: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    channel = 0 if self.batch_last else -1
    for i in range(self.depth):
      x = Conv(
        self.features,
        (3, 3),
        use_bias=self.norm == "none",
        kernel_init=self.kernel_init,
        formulation=self.formulation,
        batch_last=self.batch_last,
        name=f"conv{i}",
      )(x)
      x = nn.relu(Norm(self.norm, channel, self.views, name=f"norm{i}")(x, mask, train=train))
    return x


class UNet(nn.Module):
  """x [B, H, W, C] -> maps (x_0 [B, H, W, D], x_1 [B, H/2, W/2, 2D], ...), the way down of a U-Net.

  x_0 = block(x), x_l = block(halved(x_{l-1})), where a block is twice a 3 x 3 convolution, norm and ReLU.
  Any size: an odd side is rounded up, and `UNetDecoder` cuts it back. Ronneberger, Fischer and Brox,
  MICCAI 2015; means instead of maxima, fewer levels and channels, and instance norm, which standardises
  a slice by itself, are ours.

  Args:
    width: D, default 8.
    levels: how many scales, default 3.
    norm: see `Norm`, default "instance".
    formulation: see `Conv`, default "auto".
  """

  width: int = WIDTH
  levels: int = LEVELS
  norm: str = "instance"
  formulation: str = "auto"

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
    x = as_image(x)
    last = prefer_batch_last(x, (3, 3), self.formulation)
    x = jnp.swapaxes(x, 0, -1) if last else x
    found = []
    for level in range(self.levels):
      x = halved(x) if level else x
      block = ConvBlock(self.width << level, self.norm, self.formulation, last, name=f"down{level}")
      x = block(x, mask, train=train)
      found.append(jnp.swapaxes(x, 0, -1) if last else x)
    return tuple(found)


class UNetDecoder(nn.Module):
  """Maps (x_0 [B, H, W, D_0], ..., x_L) -> (logits [B, H, W, C], {"latent": y_L}), the way up of a U-Net.

  y_L = block(x_L), y_l = block([doubled(P_l y_{l+1}); x_l]) with P_l a 1 x 1 convolution, logits = W y_0 + b.

  Args:
    num_classes: C.
    width: channels of y_0, doubled at each scale; default 8.
    norm: see `Norm`, default "instance".
    formulation: see `Conv`, default "auto".
  """

  num_classes: int
  width: int = WIDTH
  norm: str = "instance"
  formulation: str = "auto"

  @nn.compact
  def __call__(
    self, maps: Sequence[jax.Array], mask: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    last = prefer_batch_last(maps[0], (3, 3), self.formulation)
    maps = [jnp.swapaxes(x, 0, -1) if last else x for x in maps]
    channel = 0 if last else -1

    def point(features, name):
      return Conv(features, (1, 1), formulation=self.formulation, batch_last=last, name=name)

    def block(x, level):
      features = self.width << level
      made = ConvBlock(features, self.norm, self.formulation, last, name=f"up{level}")
      return made(x, mask, train=train)

    top = len(maps) - 1
    y = latent = block(maps[top], top)
    for level in reversed(range(top)):
      above = doubled(point(self.width << level, f"narrow{level}")(y), maps[level].shape[1:3])
      y = block(jnp.concatenate([above, maps[level]], channel), level)
    y = point(self.num_classes, "out")(y)
    rows_first = lambda x: jnp.swapaxes(x, 0, -1) if last else x
    return rows_first(y), {"latent": rows_first(latent)}


class MapHead(nn.Module):
  """logits = sum_l up(W_l x_l) + b [B, H, W, C]: a linear head on maps of several scales.

  up repeats pixels to the size of x_0. Score maps of several scales, summed: Long, Shelhamer and Darrell,
  CVPR 2015. What `nn.Dense` is to a vector.
  """

  num_classes: int

  @nn.compact
  def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
    linear = lambda level: nn.Dense(self.num_classes, use_bias=level == 0, name=f"scale{level}")
    top = len(maps) - 1
    y: jax.Array = linear(top)(maps[top])
    for level in reversed(range(top)):
      own = linear(level)(maps[level])
      y = own + doubled(y, own.shape[1:3])
    return y
