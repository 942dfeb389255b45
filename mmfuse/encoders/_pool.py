"""Max-pooling by slices and selects: on CPU faster than `lax.reduce_window`, also in a loop."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mmfuse.encoders._conv import Padding, pads


def larger(a: jax.Array, b: jax.Array) -> jax.Array:
  """max(a, b) elementwise, NaN included; of two that are equal, `a` gets all of the gradient.

  A select and not `jnp.maximum` or a reduction, whose gradients ask `x == max(x)`: where XLA fuses
  the two sides differently, x is recomputed with another rounding, nothing is equal and the
  gradient is silently lost (seen on CPU behind a normalisation).
  """
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


def first_largest(x: jax.Array | Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
  """(maximum of the x[k], its k int8): by halves, for XLA repeats a chain in every consumer."""
  if len(x) == 1:
    return x[0], jnp.zeros(x[0].shape, jnp.int8)
  half = len(x) // 2
  (a, i), (b, j) = first_largest(x[:half]), first_largest(x[half:])
  keep = (a >= b) | jnp.isnan(a)
  return jnp.where(keep, a, b), jnp.where(keep, i, j + jnp.int8(half))


def picked(x: jax.Array, at: jax.Array) -> jax.Array:
  """x[at[...], ...] of x [K, ...] and an index [...]: selects, as XLA sums what it has written out."""
  best = x[-1]
  for i in reversed(range(x.shape[0] - 1)):
    best = jnp.where(at == i, x[i], best)
  return best


@jax.custom_jvp
def max_first(x: jax.Array) -> jax.Array:
  """Maximum over the first axis of x [K, ...], K <= 127; of entries that tie, the first has the gradient.

  As a chain of `larger`, but differentiated as one select: slices would be padded and added up.
  """
  return first_largest(x)[0]


@max_first.defjvp
def _max_first_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  best, at = first_largest(x)
  here = at[None] == jnp.expand_dims(jnp.arange(x.shape[0], dtype=jnp.int8), range(1, x.ndim))
  return best, jnp.sum(jnp.where(here, dx, 0), 0)


def entry_at(x: jax.Array, where: Callable[..., jax.Array]) -> jax.Array:
  """[B, C] of x [B, n, C]: the entry at the place that `where` (`jnp.argmax`, `jnp.argmin`) chooses.

  It alone has the gradient, of entries that tie the first. By its place, for the reason that `larger` says;
  for any n, where `max_first` is for the few entries of a window.
  """
  at = where(jax.lax.stop_gradient(x), axis=1)[:, None]
  here = jnp.arange(x.shape[1])[None, :, None] == at
  return jnp.sum(jnp.where(here, x, jnp.zeros((), x.dtype)), 1)


def max_pool(
  x: jax.Array,
  kernel: Sequence[int],
  strides: Sequence[int] | None = None,
  padding: Padding = "VALID",
) -> jax.Array:
  """Maximum over windows of x [B, *size, C] (or [C, *size, B]).

  A remainder is cut off, and an axis shorter than its window is pooled over all it has, so that
  size 1 stays 1. Of entries that tie, the first in row-major order gets the gradient, as in torch.

  Args:
    x: the channels on one side, the batch on the other.
    kernel: sizes of the window.
    strides: default `kernel`.
    padding: default "VALID", or as in XLA.
  """
  size = x.shape[1:-1]
  strides = tuple(strides or kernel)
  around = pads(padding, size, kernel, strides)
  x = jnp.pad(x, ((0, 0), *around, (0, 0)), constant_values=-jnp.inf)
  for axis in reversed(range(len(size))):  # the maximum is separable: k + k slices, not k * k
    x = _pool_axis(x, axis + 1, min(kernel[axis], x.shape[axis + 1]), strides[axis])
  return x


def _pool_axis(x, axis, kernel, stride):
  reach = (x.shape[axis] - kernel) // stride * stride + 1
  best, *others = [jax.lax.slice_in_dim(x, i, i + reach, stride, axis) for i in range(kernel)]
  for other in others:
    best = larger(best, other)
  return best
