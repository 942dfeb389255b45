"""Convolutions over time: the default encoder of sequences of vectors."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Conv
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._segments import segment_means
from mmfuse.encoders._sequence import length_of, mean_over, steps_of_vectors, within, zero_after

STEPS = 256  # positions that the stem leaves, at most twice this
LEAST = 16  # steps below which a convolution does not halve them


def centred(steps: int, kernel: int, stride: int) -> tuple[int, int]:
  """Padding (low, high) for ceil(T / stride) windows, window p around p * stride.. + stride - 1.

  "SAME" with a left side that does not depend on T, so that padding a clip moves no window.
  """
  low = max(0, (kernel - stride) // 2)
  return low, max(0, (-(-steps // stride) - 1) * stride + kernel - steps - low)


class Conv1D(nn.Module):
  """x [B, T, C] -> [B, features]: (convolution, norm, ReLU) per width, then means over segments.

  512 steps or more are first cut into patches of T // 256, each mapped to the first width. A dense
  layer follows where `features` is not the width. Defaults are ours, chosen on the panel of
  docs/decisions.md.

  Of a `core.Sequence` each row stops at its length L: later values are zeros to every convolution,
  ceil(L / stride) positions are left by a stride, norms see those alone, segments are cut within
  them, and the steps after them are zero.

  Args:
    features: default 64.
    widths: of the convolutions, default (32, 64).
    kernel: their size, default 5.
    stride: default 2: a convolution halves the time (rounded up) where at least 16 steps come in; a
      quarter of the cost of stride 1 on two layers.
    norm: see `Norm`, default "layer".
    formulation: see `Conv`, default "auto".
    pool: "segments" (default): means over `segments` equal parts of the time, side by side, so that
      the result tells where in the clip something happens; "mean": over all of it; "none":
      [B, T', features], the steps that are left, for a fusion that attends to them.
    segments: default 8.
  """

  reads_lengths = True

  features: int = 64
  widths: Sequence[int] = (32, 64)
  kernel: int = 5
  stride: int = 2
  norm: str = "layer"
  formulation: str = "auto"
  pool: str = "segments"
  segments: int = 8

  @property
  def step_features(self) -> int | None:
    """The width of a step where the result is a sequence of them."""
    return self.features if self.pool == "none" else None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    if self.pool not in ("segments", "mean", "none"):
      raise ValueError(f"pool is 'segments', 'mean' or 'none', got {self.pool!r}")
    x, length = steps_of_vectors(x)[0], length_of(x)
    patch = max(1, x.shape[1] // STEPS)
    if patch > 1:
      x, length = self._block(x, length, self.widths[0], patch, patch, "stem", mask, train)
    for i, width in enumerate(self.widths):
      stride = self.stride if x.shape[1] >= LEAST else 1
      x, length = self._block(x, length, width, self.kernel, stride, str(i), mask, train)
    if self.pool == "mean":
      x = mean_over(x, within(length, x.shape[:2])) if length is not None else jnp.mean(x, 1)
    elif self.pool == "segments":
      x = segment_means(x, self.segments, length)
      x = x.reshape(x.shape[0], -1)
    x = x if x.shape[-1] == self.features else nn.Dense(self.features, name="project")(x)
    return zero_after(x, length) if self.pool == "none" else x

  def _block(self, x, length, width, kernel, stride, name, mask, train):
    """(convolution, norm, ReLU) of x, and the lengths that it leaves."""
    conv = Conv(
      width,
      (kernel,),
      (stride,),
      (centred(x.shape[1], kernel, stride),),
      use_bias=self.norm != "batch",
      formulation=self.formulation,
      name=f"conv{name}",
    )
    x = conv(zero_after(x, length))
    length = None if length is None else -(-length // stride)
    seen = mask if length is None else mask[:, None] & within(length, x.shape[:2])
    return nn.relu(Norm(self.norm, name=f"norm{name}")(x, seen, train=train)), length
