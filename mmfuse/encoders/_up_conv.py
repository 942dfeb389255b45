"""A transposed convolution to a size given, in the order of axes that is fast where it runs."""

from collections.abc import Sequence
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv


class UpConv(nn.Module):
  r"""x [N, h, w, C] -> [N, H, W, features], a transposed convolution to a size given.

  y[o] = \sum_{i, t: o = s i - p + t} x[i] W[t] + b along an axis, p = (kernel - 1) // 2, s = 1 where the
  sizes are equal and else ceil(H / h). No product with an inserted zero is made: see `up_conv` and
  `up_conv_last`.

  Args:
    features: channels of the result.
    kernel: its size along both axes.
    size: (H, W).
    batch_last: x and the result are [C, h, w, N]; default False.
  """

  features: int
  kernel: int
  size: Sequence[int]
  batch_last: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    strides = tuple(-(-big // small) for big, small in zip(self.size, x.shape[1:3]))
    channel = 0 if self.batch_last else 3
    if strides == (1, 1):
      same = Conv(self.features, (self.kernel,) * 2, batch_last=self.batch_last, name="same")
      return same(x)
    shape = (self.kernel, self.kernel, x.shape[channel], self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(x.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
    y = (up_conv_last if self.batch_last else up_conv)(x, kernel, strides, self.size)
    return y + jnp.expand_dims(bias, [a for a in range(4) if a != channel])


def _taps(reach: int, phase: int, stride: int) -> list[tuple[int, int]]:
  """[(tap, shift)]: output s p + phase reads x[p + shift] by that tap."""
  at = phase + (reach - 1) // 2
  return [(t, (at - t) // stride) for t in range(reach) if (at - t) % stride == 0]


def up_conv(
  x: jax.Array, kernel: jax.Array, strides: Sequence[int], size: Sequence[int]
) -> jax.Array:
  """The transposed convolution of `UpConv`, without its bias.

  Phase by phase, o mod s: each is a product of a few shifted copies of x with its own taps.

  Args:
    x: [N, h, w, C].
    kernel: [k, k, C, F].
    strides: s of both axes.
    size: (H, W), at most s (h, w).
  """
  reach = kernel.shape[0]
  padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  h, w = x.shape[1:3]

  def one(a, b):
    pairs = list(product(_taps(reach, a, strides[0]), _taps(reach, b, strides[1])))
    if not pairs:
      return jnp.zeros((*x.shape[:3], kernel.shape[-1]), x.dtype)
    moved = [
      padded[:, reach + i : reach + i + h, reach + j : reach + j + w] for (_, i), (_, j) in pairs
    ]
    rows = jnp.concatenate([kernel[s, t] for (s, _), (t, _) in pairs], 0)
    return jnp.concatenate(moved, -1) @ rows

  phases = [jnp.stack([one(a, b) for b in range(strides[1])], 3) for a in range(strides[0])]
  y = jnp.stack(phases, 2)  # [N, h, s, w, s, F]
  y = y.reshape(x.shape[0], h * strides[0], w * strides[1], kernel.shape[-1])
  return y[:, : size[0], : size[1]]


def up_conv_last(
  x: jax.Array, kernel: jax.Array, strides: Sequence[int], size: Sequence[int]
) -> jax.Array:
  """The same of x [C, h, w, N]: [F, H, W, N].

  One product makes what every input gives by every tap, [k k F, h w N]; each phase is a sum of a few of
  those, shifted. Rows of N numbers stay whole throughout, and nothing is as large as patches of x: on CPU
  a third to a fifth of the time of `up_conv`, whose products have F columns.
  """
  reach, width = kernel.shape[0], kernel.shape[-1]
  channels, h, w, rows = x.shape
  matrix = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
  given = jnp.tensordot(matrix, x.reshape(channels, -1), ((0,), (0,)))
  parts = [p.reshape(width, h, w, rows) for p in jnp.split(given, reach**2, 0)]

  def one(a, b):
    pairs = product(_taps(reach, a, strides[0]), _taps(reach, b, strides[1]))
    moved = [_shifted(parts[s * reach + t], i, j) for (s, i), (t, j) in pairs]
    return sum(moved) if moved else jnp.zeros_like(parts[0])

  phases = jnp.stack([one(a, b) for a in range(strides[0]) for b in range(strides[1])])
  phases = phases.reshape(*strides, width, h, w, rows).transpose(2, 3, 0, 4, 1, 5)
  y = phases.reshape(width, h * strides[0], w * strides[1], rows)
  return y[:, : size[0], : size[1]]


def _shifted(x: jax.Array, i: int, j: int) -> jax.Array:
  """[F, p, q, N] -> what stands at [F, p + i, q + j, N], zeros beyond the edge."""
  ends = [(min(max(n, 0), size), min(max(-n, 0), size)) for n, size in zip((i, j), x.shape[1:3])]
  (top, bottom), (left, right) = ends
  inside = x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]
  return jnp.pad(inside, ((0, 0), (bottom, top), (right, left), (0, 0)))
