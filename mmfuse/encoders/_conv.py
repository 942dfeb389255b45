"""One convolution in the formulation that is fast where it runs: `lax.conv`, patches, Winograd's."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._dense import product
from mmfuse.encoders._winograd import conv_winograd, winograd_pays

FORMULATIONS = ("auto", "lax", "patches")
PATCH_LIMIT = 1 << 19  # elements of one row's patches; above it they cost more memory than time
WIDE = 64  # channels from which slices of patches are long enough to copy

Padding = str | int | Sequence[int | tuple[int, int]]


def pads(
  padding: Padding, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
  """`padding` as (low, high) pairs: "SAME", "VALID", one number, or a number or pair per axis."""
  if padding == "VALID":
    return tuple((0, 0) for _ in size)
  if padding == "SAME":
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, strides)]
    return tuple((t // 2, t - t // 2) for t in total)
  if isinstance(padding, str):
    raise ValueError(f"padding is 'SAME', 'VALID' or numbers, got {padding!r}")
  each = [padding] * len(size) if isinstance(padding, int) else padding
  return tuple((p, p) if isinstance(p, int) else tuple(p) for p in each)


def windows(x: jax.Array, kernel: Sequence[int], strides: Sequence[int]) -> list[jax.Array]:
  """The kernel positions of x [_, *size, _] as prod(kernel) strided slices [_, *out, _]."""
  out = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:-1], kernel, strides)]

  def one(offset):
    limits = [o + (n - 1) * s + 1 for o, n, s in zip(offset, out, strides)]
    return jax.lax.slice(x, (0, *offset, 0), (x.shape[0], *limits, x.shape[-1]), (1, *strides, 1))

  return [one(offset) for offset in itertools.product(*(range(k) for k in kernel))]


def conv_lax(x, kernel, strides, padding, batch_last=False):
  """`lax.conv_general_dilated` of x [B, *size, C] with kernel [*k, C, F]."""
  spatial = "DHW"[-(x.ndim - 2) :]
  layout = f"C{spatial}N" if batch_last else f"N{spatial}C"
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=(layout, f"{spatial}IO", layout)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_by_row(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: tuple[tuple[int, ...], ...]
) -> jax.Array:
  """`conv_lax`, of which the gradient of the kernel is a product of patches, row after row of x.

  XLA's own takes up to three times as long as a forward pass on CPU; row by row, for patches of all rows are
  9 times x. It can be differentiated twice; `jax.jvp` of it cannot, but of its gradient.
  """
  return conv_lax(x, kernel, strides, padding)


def _conv_by_row_vjp(strides, padding, kept, g):
  x, kernel = kept
  (dx,) = jax.vjp(lambda x: conv_lax(x, kernel, strides, padding), x)[1](g)

  def add(total, row):
    x, g = row
    patches = jnp.concatenate(windows(x[None], kernel.shape[:-2], strides), -1)
    columns = patches.reshape(-1, patches.shape[-1])
    return total + jnp.tensordot(g.reshape(-1, g.shape[-1]), columns, ((0,), (0,))), None

  start = jnp.zeros((kernel.shape[-1], math.prod(kernel.shape[:-1])), kernel.dtype)
  dk, _ = jax.lax.scan(add, start, (jnp.pad(x, ((0, 0), *padding, (0, 0))), g))
  return dx, dk.T.reshape(kernel.shape)


def _conv_by_row_kept(x, kernel, strides, padding):
  return conv_lax(x, kernel, strides, padding), (x, kernel)


conv_by_row.defvjp(_conv_by_row_kept, _conv_by_row_vjp)


def products_pay(x: jax.Array) -> bool:
  """Whether `conv_by_row` is the faster one for x [B, *size, C]: float32 on CPU, not of few channels."""
  return jax.default_backend() == "cpu" and x.dtype == jnp.float32 and x.shape[-1] >= WIDE


def _product(matrix, patches, *lead):
  """matrix^T patches, [*lead, -1, *size, B]; of matrices, or XLA copies the patches to differentiate."""
  y = jnp.tensordot(matrix, patches.reshape(patches.shape[0], -1), ((0,), (0,)))
  return y.reshape(*lead, -1, *patches.shape[1:])


def conv_patches(x, kernel, strides, padding, batch_last=False):
  """The same by slices and one matrix product; differentiates without convolution or scatter."""
  x = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
  patches = jnp.concatenate(windows(x, kernel.shape[:-2], strides), 0 if batch_last else -1)
  matrix = kernel.reshape(-1, kernel.shape[-1])
  if batch_last:
    return _product(matrix, patches)
  rows = product(patches.reshape(-1, patches.shape[-1]), matrix)
  return rows.reshape(*patches.shape[:-1], -1)


def conv_cells(x, kernel):
  """The positions of each 2 x 2 cell of a "SAME" convolution: [4, F, H / 2, W / 2, B], row-major.

  x [C, H, W, B] with even H and W; kernel [k, k, C, F], k odd, stride 1. A cell sees (k + 1)^2
  positions, so one product with four shifted kernels makes it, of patches that are 9 (k = 3: 4) and
  not 25 (9) times the input; a 2 x 2 pooling is then over the first axis.
  """
  size, pad = kernel.shape[0] + 1, kernel.shape[0] // 2
  x = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
  patches = jnp.concatenate(windows(x, (size, size), (2, 2)), 0)
  shifted = [
    jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in (0, 1) for j in (0, 1)
  ]
  matrix = jnp.stack(shifted, 3).reshape(patches.shape[0], -1)
  return _product(matrix, patches, 4)


def use_patches(x, kernel, strides, padding, formulation) -> bool:
  """What `formulation` means for x on this backend; raises ValueError for one that is unknown."""
  if formulation not in FORMULATIONS:
    raise ValueError(f"formulation is one of {', '.join(FORMULATIONS)}, got {formulation!r}")
  if formulation != "auto":
    return formulation == "patches"
  if jax.default_backend() != "cpu":
    return False
  out = [
    (n + sum(p) - k) // s + 1 for n, p, k, s in zip(x.shape[1:-1], padding, kernel[:-2], strides)
  ]
  return math.prod(out) * math.prod(kernel[:-1]) <= PATCH_LIMIT


def prefer_batch_last(x: jax.Array, kernel: Sequence[int], formulation: str) -> bool:
  """Whether a small network on x [B, *size, C] is faster as [C, *size, B]: where it uses patches.

  Few channels make short rows, and the batch is long: half the time on LeNet, on CPU. On [B, T, C]
  with 32 channels and more it makes no difference, so 1-D networks stay as they are.
  """
  size = x.shape[1:-1]
  strides = (1,) * len(size)
  padding = pads("SAME", size, kernel, strides)
  return use_patches(x, (*kernel, x.shape[-1], 1), strides, padding, formulation)


class Conv(nn.Module):
  """Convolution of x [B, *size, C] to [B, *out, features]; parameters kernel [*k, C, F], bias [F].

  Args:
    features: F.
    kernel: its sizes k.
    strides: default 1.
    padding: default "SAME", as in XLA.
    use_bias: default True.
    formulation: "lax", "patches", or "auto" (default): on CPU `conv_winograd` for 3 x 3 kernels of 128
      channels and more and patches for 1-D and small 2-D inputs, where `lax.conv` inside `lax.scan` is
      several times slower, and `lax` elsewhere (`conv_by_row` on CPU). Values and gradients agree to 1e-5.
    kernel_init: default lecun_normal, Linen's.
    batch_last: x and the result are [C, *size, B]; default False.
    cells: x is [C, H, W, B] with even H and W, and the result [4, F, H / 2, W / 2, B], for
      `max_first` or `Norm(cells=True)` (see `conv_cells`); default False.
  """

  features: int
  kernel: Sequence[int]
  strides: Sequence[int] | None = None
  padding: Padding = "SAME"
  use_bias: bool = True
  formulation: str = "auto"
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
  batch_last: bool = False
  cells: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if x.ndim != len(self.kernel) + 2:
      raise ValueError(
        f"a convolution with kernel {tuple(self.kernel)} takes arrays of rank "
        f"{len(self.kernel) + 2}, got shape {list(x.shape)}"
      )
    strides = tuple(self.strides or (1,) * len(self.kernel))
    channel = 0 if self.batch_last else x.ndim - 1
    shape = (*self.kernel, x.shape[channel], self.features)
    kernel = self.param("kernel", self.kernel_init, shape).astype(x.dtype)
    if self.cells:
      self._check_cells(x, strides)
      y, channel = conv_cells(x, kernel), 1
    else:
      padding = pads(self.padding, x.shape[1:-1], self.kernel, strides)
      y = self._convolved(x, kernel, strides, padding)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
      y = y + jnp.expand_dims(bias, [a for a in range(y.ndim) if a != channel])
    return y

  def _convolved(self, x, kernel, strides, padding):
    free = self.formulation == "auto" and not self.batch_last
    if free and winograd_pays(x, kernel, strides, padding):
      return conv_winograd(x, kernel)
    if use_patches(x, kernel.shape, strides, padding, self.formulation):
      return conv_patches(x, kernel, strides, padding, self.batch_last)
    if free and products_pay(x):
      return conv_by_row(x, kernel, strides, padding)
    return conv_lax(x, kernel, strides, padding, self.batch_last)

  def _check_cells(self, x, strides):
    square = len(set(self.kernel)) == 1 and self.kernel[0] % 2 == 1 and len(self.kernel) == 2
    even = all(n % 2 == 0 for n in x.shape[1:-1])
    if not (self.batch_last and square and even and self.padding == "SAME" and set(strides) == {1}):
      raise ValueError(
        "cells needs batch_last, an odd square kernel, stride 1, padding 'SAME' and even sizes, got "
        f"kernel {tuple(self.kernel)}, strides {strides}, padding {self.padding!r}, "
        f"batch_last {self.batch_last}, shape {list(x.shape)}"
      )
