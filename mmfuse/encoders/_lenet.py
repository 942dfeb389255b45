"""LeNet in the sizes of MultiBench and I2M2.

Jointly Modeling Inter- & Intra-Modality Dependencies for Multi-modal Learning; Madaan, Makino,
Chopra, Cho; NeurIPS 2024.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv, prefer_batch_last
from mmfuse.encoders._conv2d import as_image
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._pool import max_pool

# torch's kaiming_uniform_ with a = 0: bound sqrt(6 / fan_in), which is what the authors call.
kaiming_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")


def lenet_layers(size: tuple[int, ...]) -> int:
  """floor(log2(longer side)) - 1 within 0..5: 3 for 28 x 28, 5 for 112 x 112, as the authors."""
  return min(5, max(0, int(math.log2(max(size))) - 1))


class LeNet(nn.Module):
  """x [B, H, W, C] or [B, H, W] -> [B, channels * 2**layers]; 1 + layers blocks.

  A block is convolution without bias, batch norm, ReLU, 2 x 2 max-pool with floor (an axis of size
  1 stays). Block 0: 5 x 5 to c channels; block i: 3 x 3 to 2^i c. What is left of H x W is
  averaged, which is nothing in the authors' sizes.

  Args:
    channels: c, default 6 (the authors'; 3 for a modality alone).
    layers: L, default 3 (the authors' on 28 x 28; 5 on 112 x 112).
    norm: see `Norm`, default "batch".
    formulation: see `Conv`, default "auto".
  """

  channels: int = 6
  layers: int = 3
  norm: str = "batch"
  formulation: str = "auto"

  @property
  def features(self) -> int:
    """Output width."""
    return self.channels * 2**self.layers

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    x = as_image(x)
    last = prefer_batch_last(x, (5, 5), self.formulation)
    x = jnp.swapaxes(x, 0, -1) if last else x
    for i in range(self.layers + 1):
      cells = last and all(n % 2 == 0 for n in x.shape[1:-1])
      conv = Conv(
        self.channels * 2**i,
        (3, 3) if i else (5, 5),
        use_bias=False,
        batch_last=last,
        cells=cells,
        formulation=self.formulation,
        kernel_init=kaiming_uniform,
        name=f"conv{i}",
      )
      channel = 1 if cells else 0 if last else -1
      x = Norm(self.norm, channel, cells=cells, name=f"norm{i}")(conv(x), mask, train=train)
      x = x if cells else max_pool(nn.relu(x), (2, 2))
    x = jnp.mean(x, (1, 2))
    return x.T if last else x
