"""Batch normalisation with its gradient written down, alone and before a pooling of cells.

With x^ = (x - mean) / sqrt(var + eps) over the n numbers of a channel that are counted, and g the cotangent
of scale x^ + bias, that of x is scale / sqrt(var + eps) (g - [counted] (sum g + x^ sum g x^) / n). Derived
from the moments it takes XLA twice as many walks over x on CPU.
"""

import functools

import jax
import jax.numpy as jnp

from mmfuse.encoders._moments import EPSILON, along, batch_moments, counted
from mmfuse.encoders._pool import first_largest, picked

Moments = tuple[jax.Array, jax.Array]


def _beside(x, channel):
  return functools.partial(along, axis=channel, ndim=x.ndim)


def _normal(x, mean, rsqrt, channel):
  put = _beside(x, channel)
  return (x - put(mean)) * put(rsqrt)


def scaled(x, scale, bias, mean, rsqrt, channel):
  """scale x^ + bias: one factor per channel, one product less per position."""
  return _normal(x, mean, rsqrt * scale, channel) + _beside(x, channel)(bias)


def _moments(x, mask, row, channel):
  """(mean, var), 1 / sqrt(var + eps)."""
  mean, var = batch_moments(x, mask, row, channel)
  return (mean, var), jax.lax.rsqrt(var + EPSILON)


def _to_input(g, x, coefficients, rows, channel):
  """factor (g - [counted] (shift + slope x)): the cotangent of x from that of y."""
  put = _beside(x, channel)
  factor, shift, slope = map(put, coefficients)
  shared = jnp.where(
    along(rows, 0 if channel == x.ndim - 1 else -1, x.ndim), shift + slope * x, 0.0
  )
  return (factor * (g - shared)).astype(x.dtype)


def _coefficients(sums, count, scale, mean, rsqrt):
  """Of `_to_input`, from sum g and sum g x^. Kept apart: XLA would compute them once per number of x."""
  slope = rsqrt * sums[1] / count
  return jax.lax.optimization_barrier((rsqrt * scale, sums[0] / count - mean * slope, slope))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def batch_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array, channel: int
) -> tuple[jax.Array, Moments]:
  """(scale x^ + bias of x's type, (mean, var) [C] float32), the moments of present rows alone.

  With nobody present they are of all rows. The moments that are returned, for running averages, have no
  gradient. It can be differentiated twice; `jax.jvp` of it cannot, but of its gradient.

  Args:
    x: [B, ..., C], or with another axis `channel` >= 0 of the channels [..., B].
    scale, bias: [C].
    mask: bool [B].
  """
  return _batch_norm(x, scale, bias, mask, channel)[0]


def _batch_norm(x, scale, bias, mask, channel):
  moments, rsqrt = _moments(x, mask, 0 if channel == x.ndim - 1 else -1, channel)
  y = scaled(x, scale, bias, moments[0], rsqrt, channel)
  return (y.astype(x.dtype), moments), (x, scale, mask, moments[0], rsqrt)


def _batch_norm_vjp(channel, kept, cotangents):
  x, scale, mask, mean, rsqrt = kept
  g = cotangents[0].astype(jnp.float32)
  others = [a for a in range(x.ndim) if a != channel]
  sums = jnp.sum(g, others), jnp.sum(g * _normal(x, mean, rsqrt, channel), others)
  rows, count = counted(x, mask, channel)
  dx = _to_input(g, x, _coefficients(sums, count, scale, mean, rsqrt), rows, channel)
  return dx, sums[1], sums[0], None


batch_norm.defvjp(_batch_norm, _batch_norm_vjp)


@jax.custom_vjp
def batch_norm_of_cells(
  x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array
) -> tuple[jax.Array, Moments]:
  """The largest over the first axis of ReLU(`batch_norm`(x)), [C, ..., B], and the moments.

  Of entries that tie, the first has the gradient. One entry of a cell has a cotangent, so that the sums are
  over the pooled positions alone, and x is walked over cell by cell: never written out as anything but dx.

  Args:
    x: [K, C, ..., B], K <= 127.
    scale, bias, mask: as there.
  """
  return _cells(x, scale, bias, mask)[0]


def _cells(x, scale, bias, mask):
  moments, rsqrt = _moments(x, mask, -1, 1)
  y = [scaled(part, scale, bias, moments[0], rsqrt, 0).astype(x.dtype) for part in x]
  best, at = first_largest(y)
  best = jax.nn.relu(best)
  return (best, moments), (x, scale, mask, moments[0], rsqrt, best, at)


def _cells_vjp(kept, cotangents):
  x, scale, mask, mean, rsqrt, best, at = kept
  g = jnp.where(best > 0, cotangents[0], 0).astype(jnp.float32)
  others = range(1, g.ndim)
  sums = jnp.sum(g, others), jnp.sum(g * _normal(picked(x, at), mean, rsqrt, 0), others)
  rows, count = counted(x, mask, 1)
  coefficients = _coefficients(sums, count, scale, mean, rsqrt)
  dx = [
    _to_input(jnp.where(at == i, g, 0.0), part, coefficients, rows, 0) for i, part in enumerate(x)
  ]
  return jnp.stack(dx), sums[1], sums[0], None


batch_norm_of_cells.defvjp(_cells, _cells_vjp)
