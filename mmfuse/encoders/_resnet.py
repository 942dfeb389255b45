"""ResNet-18 and ResNet-34 with torchvision's names and layout, so that its weights fit; an SE-ResNet's stem.

Deep Residual Learning for Image Recognition; He, Zhang, Ren, Sun; CVPR 2016. Squeeze-and-Excitation
Networks; Hu, Shen, Sun; CVPR 2018. A parameter's path
joined by dots is torchvision's name, but for the last part: kernel and scale are called weight
there (kernels [F, C, kh, kw] instead of [kh, kw, C, F]), mean and var running_mean and running_var.
"""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv
from mmfuse.encoders._conv2d import as_image
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._pool import max_pool

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(width, kernel, stride, formulation, name):
  # Explicit padding: XLA's SAME pads stride 2 on the right only, torch on both sides.
  return Conv(
    width,
    (kernel, kernel),
    (stride, stride),
    kernel // 2,
    use_bias=False,
    formulation=formulation,
    kernel_init=kaiming_fan_out,
    name=name,
  )


class Downsample(nn.Module):
  """The shortcut where the shape changes: 1 x 1 convolution and norm, named "0" and "1"."""

  width: int
  stride: int
  norm: str
  formulation: str

  @nn.compact
  def __call__(self, x, mask, *, train: bool):
    x = _conv(self.width, 1, self.stride, self.formulation, "0")(x)
    return Norm(self.norm, name="1")(x, mask, train=train)


class SqueezeExcite(nn.Module):
  """x * sigmoid(W_2 ReLU(W_1 mean_hw(x) + b_1) + b_2), W_1 [C, C / ratio], W_2 [C / ratio, C]."""

  ratio: int

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    squeezed = nn.relu(nn.Dense(max(1, width // self.ratio), name="squeeze")(jnp.mean(x, (1, 2))))
    return x * nn.sigmoid(nn.Dense(width, name="excite")(squeezed))[:, None, None, :]


class BasicBlock(nn.Module):
  """ReLU(x + norm(conv(ReLU(norm(conv(x)))))), with `Downsample` on x where the shape changes.

  ratio: of a `SqueezeExcite` before x is added; 0 = none.
  """

  width: int
  stride: int
  norm: str
  formulation: str
  ratio: int = 0

  @nn.compact
  def __call__(self, x, mask, *, train: bool):
    y = _conv(self.width, 3, self.stride, self.formulation, "conv1")(x)
    y = nn.relu(Norm(self.norm, name="bn1")(y, mask, train=train))
    y = _conv(self.width, 3, 1, self.formulation, "conv2")(y)
    y = Norm(self.norm, name="bn2")(y, mask, train=train)
    if self.ratio:
      y = SqueezeExcite(self.ratio, name="se")(y)
    if self.stride != 1 or x.shape[-1] != self.width:
      x = Downsample(self.width, self.stride, self.norm, self.formulation, name="downsample")(
        x, mask, train=train
      )
    return nn.relu(x + y)


class Stage(nn.Module):
  """`blocks` basic blocks named "0", "1"...; the first one carries the stride."""

  blocks: int
  width: int
  stride: int
  norm: str
  formulation: str
  ratio: int = 0

  @nn.compact
  def __call__(self, x, mask, *, train: bool):
    for i in range(self.blocks):
      stride = 1 if i else self.stride
      block = BasicBlock(self.width, stride, self.norm, self.formulation, self.ratio, name=str(i))
      x = block(x, mask, train=train)
    return x


class _ResNet(nn.Module):
  features: int = 512
  norm: str = "batch"
  small_stem: bool = False
  formulation: str = "auto"

  blocks: ClassVar[tuple[int, ...]]

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    x = as_image(x)
    kernel, stride = (3, 1) if self.small_stem else (7, 2)
    x = _conv(64, kernel, stride, self.formulation, "conv1")(x)
    x = nn.relu(Norm(self.norm, name="bn1")(x, mask, train=train))
    if not self.small_stem:
      x = max_pool(x, (3, 3), (2, 2), 1)
    for i, blocks in enumerate(self.blocks):
      stride, name = 2 if i else 1, f"layer{i + 1}"
      stage = Stage(blocks, 64 * 2**i, stride, self.norm, self.formulation, name=name)
      x = stage(x, mask, train=train)
    x = jnp.mean(x, (1, 2))
    return x if self.features == x.shape[-1] else nn.Dense(self.features, name="project")(x)


class ResNet18(_ResNet):
  """x [B, H, W, C] or [B, H, W] -> [B, features]: ResNet-18 up to its average over positions.

  Args:
    features: default 512; a dense layer "project" follows where it is another number.
    norm: "batch" (default) or "group".
    small_stem: one 3 x 3 convolution in the place of the 7 x 7 stride-2 convolution and the
      max-pool, for images of about 32 x 32; default False.
    formulation: see `Conv`, default "auto".
  """

  blocks = (2, 2, 2, 2)


class ResNet34(_ResNet):
  """x [B, H, W, C] or [B, H, W] -> [B, features]: ResNet-34.

  Args:
    features, norm, small_stem, formulation: as in `ResNet18`.
  """

  blocks = (3, 4, 6, 3)


class SEResNet18Stem(nn.Module):
  """x [B, H, W, C] or [B, H, W] -> maps [B, H / 8, W / 8, 128]: the first half of an SE-ResNet-18.

  A 3 x 3 stride-2 convolution, norm, ReLU, max-pool, and the first two stages; the second half is
  `fusion.Trunk`, which reads the maps of all modalities side by side. 112 x 112 becomes 14 x 14.

  Args:
    widths: of the convolution and first stage, and of the second, default (64, 128).
    ratio: of the squeeze, default 16 (Wei, Luo and Luo, CVPR 2023).
    norm: "batch" (default) or "group".
    formulation: see `Conv`, default "auto".
  """

  widths: Sequence[int] = (64, 128)
  ratio: int = 16
  norm: str = "batch"
  formulation: str = "auto"

  @property
  def step_features(self) -> int:
    """The width of a position."""
    return self.widths[-1]

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    x = _conv(self.widths[0], 3, 2, self.formulation, "conv1")(as_image(x))
    x = nn.relu(Norm(self.norm, name="bn1")(x, mask, train=train))
    x = max_pool(x, (3, 3), (2, 2), 1)
    for i, width in enumerate(self.widths):
      stride, name = 2 if i else 1, f"layer{i + 1}"
      stage = Stage(2, width, stride, self.norm, self.formulation, self.ratio, name=name)
      x = stage(x, mask, train=train)
    return x
