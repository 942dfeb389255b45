"""Normalisation that knows which rows are present: batch, layer, group or none."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._batch_norm import batch_norm, batch_norm_of_cells, scaled
from mmfuse.encoders._moments import EPSILON, along, view_moments
from mmfuse.encoders._pool import max_first

KINDS = ("layer", "batch", "group", "instance", "none")
MOMENTUM = 0.9  # torch's momentum 0.1


def group_norm(x: jax.Array, groups: int, valid: jax.Array | None = None) -> jax.Array:
  """(x - mean) / sqrt(var + eps) per row and channel group of x [B, ..., C], in float32.

  valid: bool [B, T] of x [B, T, C], the positions that the moments are taken over; None = all.
  """
  grouped = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
  if valid is None:
    mean = lambda y: jnp.mean(y, (1, 3), keepdims=True)
  else:
    here = valid[:, :, None, None]
    count = jnp.maximum(here.sum(1, keepdims=True), 1) * grouped.shape[-1]
    mean = lambda y: jnp.sum(jnp.where(here, y, 0.0), (1, 3), keepdims=True) / count
  centred = grouped - mean(grouped)
  return (centred * jax.lax.rsqrt(mean(jnp.square(centred)) + EPSILON)).reshape(x.shape)


def _over(vector: jax.Array, x: jax.Array, channel: int) -> jax.Array:
  """sum_c vector_c x_c, that axis kept: a product, on CPU faster than a reduction of short rows."""
  if channel == x.ndim - 1:
    rows = x.reshape(-1, x.shape[-1])
    # Two columns come from a library; with one, XLA compiles every layer's product for itself.
    twice = jnp.broadcast_to(vector[:, None], (len(vector), 2))
    return jnp.matmul(rows, twice, precision="highest")[:, :1].reshape(*x.shape[:-1], 1)
  # A product of matrices where nothing leads, for XLA takes stacks of them one by one.
  columns = x.reshape(*x.shape[: channel + 1], -1)
  total = jnp.matmul(vector[None], columns, precision="highest")
  return total.reshape(*x.shape[:channel], 1, *x.shape[channel + 1 :])


def _mean(x: jax.Array, channel: int) -> jax.Array:
  return _over(jnp.full(x.shape[channel], 1.0 / x.shape[channel], x.dtype), x, channel)


def _layer_norm(x, scale, bias, channel):
  """(y, (x_hat, 1 / sqrt(var + eps), scale)), what the gradient needs beside y."""
  centred = x - _mean(x, channel)
  rsqrt = jax.lax.rsqrt(_mean(jnp.square(centred), channel) + EPSILON)
  normal = centred * rsqrt
  put = functools.partial(along, axis=channel, ndim=x.ndim)
  return normal * put(scale) + put(bias), (normal, rsqrt, scale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, channel: int) -> jax.Array:
  """scale (x - mean) / sqrt(var + eps) + bias over the axis `channel` >= 0 of x; float32.

  With g the cotangent and x^ the normalised x, that of x is
  (g scale - mean(g scale) - x^ mean(g scale x^)) / sqrt(var + eps). Written down because XLA's own
  passes over it cost two to three times as much on CPU.
  """
  return _layer_norm(x, scale, bias, channel)[0]


def _layer_norm_vjp(channel, saved, g):
  normal, rsqrt, scale = saved
  others = [a for a in range(g.ndim) if a != channel]
  mean = lambda v: _over(scale / scale.shape[0], v, channel)  # of scale v
  pulled = g * along(scale, channel, g.ndim) - mean(g) - normal * mean(g * normal)
  return rsqrt * pulled, jnp.sum(g * normal, others), jnp.sum(g, others)


layer_norm.defvjp(_layer_norm, _layer_norm_vjp)


class Norm(nn.Module):
  """y = scale * (x - mean) / sqrt(var + 1e-5) + bias over x [B, ..., C]; scale, bias [C].

  "layer" takes mean and var over the channels of each position; "group" over all positions and the
  channels of each of gcd(32, C) groups (Wu and He, Group Normalization, ECCV 2018); "instance" over all
  positions of each row and channel (Ulyanov, Vedaldi and Lempitsky, arXiv 1607.08022); "batch" over the
  present rows and all positions in training (`mask` [B], True = present) and from running averages
  (momentum 0.9, biased variance) otherwise (Ioffe and Szegedy, Batch Normalization, ICML 2015); "none"
  returns x. A batch without any present row leaves the running averages as they were. A mask bool [B, T],
  of x [B, T, C], says which positions count instead of which rows; None = all, but for
  "batch" in training. Raises ValueError for another kind.

  Args:
    kind: one of those, default "layer".
    channel: the axis of the channels; -1 (default) has the rows first, any other has them last: 0 in
      [C, ..., B], 1 in [4, C, ..., B].
    views: default 1; V has "batch" take x in training for V passes side by side, [V B, ..., C] of a mask
      [B]: each is normalised by its own moments, and the running averages move V times.
    cells: x is [K, C, ..., B] with `channel` 1, as `Conv(cells=True)` makes it, and the result the largest
      over the first axis of ReLU(y), [C, ..., B]; default False.
  """

  kind: str = "layer"
  channel: int = -1
  views: int = 1
  cells: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
    if self.kind not in KINDS:
      raise ValueError(f"norm is one of {', '.join(KINDS)}, got {self.kind!r}")
    if self.cells and (self.channel % x.ndim != 1 or x.ndim < 3):
      raise ValueError(
        f"cells needs x [K, C, ..., B] and channel 1, got {list(x.shape)} and channel {self.channel}"
      )
    if self.kind == "batch" and train:
      return self._batch(x, mask, self.channel % x.ndim)
    y = x if self.kind == "none" else self._rows(x, mask, self.channel % x.ndim)
    return self._pooled(y)

  def _pooled(self, y):
    return max_first(nn.relu(y)) if self.cells else y

  def _scale_bias(self, channels):
    scale = self.param("scale", nn.initializers.ones, (channels,))
    return scale, self.param("bias", nn.initializers.zeros, (channels,))

  def _rows(self, x, mask, channel):
    """Everything that takes the rows one by one."""
    scale, bias = self._scale_bias(x.shape[channel])
    if self.kind == "layer":
      return layer_norm(x.astype(jnp.float32), scale, bias, channel).astype(x.dtype)
    put = functools.partial(along, axis=channel, ndim=x.ndim)
    if self.kind == "batch":
      mean, var = (r.value for r in self._running(x.shape[channel]))
      rsqrt = jax.lax.rsqrt(var + EPSILON)
      return scaled(x, scale, bias, mean, rsqrt, channel).astype(x.dtype)
    normal = self._instance(x) if self.kind == "instance" else self._grouped(x, mask, channel)
    return (normal * put(scale) + put(bias)).astype(x.dtype)

  def _batch(self, x, mask, channel):
    """Batch norm in training, which moves the running averages."""
    scale, bias = self._scale_bias(x.shape[channel])
    running = self._running(x.shape[channel])
    if self.views > 1:
      return self._pooled(self._side_by_side(x, mask, channel, scale, bias, running))
    if self.cells:
      y, moments = batch_norm_of_cells(x, scale, bias, mask)
    elif mask.ndim > 1:  # every position is a row of its own
      flat = x.reshape(-1, x.shape[-1])
      y, moments = batch_norm(flat, scale, bias, mask.reshape(-1), 1)
      y = y.reshape(x.shape)
    else:
      y, moments = batch_norm(x, scale, bias, mask, channel)
    self._move(running, moments, mask)
    return y

  def _side_by_side(self, x, mask, channel, scale, bias, running):
    mean, var, beside = view_moments(x, mask, self.views, channel)
    for moments in zip(mean, var):
      self._move(running, moments, mask)
    factor = beside(jax.lax.rsqrt(var + EPSILON) * scale[None])
    return ((x - beside(mean)) * factor + along(bias, channel, x.ndim)).astype(x.dtype)

  def _instance(self, x):
    """Rows and channels are the first and the last axis, in either order."""
    axes, x = tuple(range(1, x.ndim - 1)), x.astype(jnp.float32)
    if self.channel not in (0, -1):
      raise ValueError(f"instance norm has its channels first or last, got axis {self.channel}")
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + EPSILON)

  def _grouped(self, x, mask, channel):
    groups = math.gcd(32, x.shape[channel])
    if channel == x.ndim - 1:
      return group_norm(x, groups, mask if mask is not None and mask.ndim > 1 else None)
    return jnp.moveaxis(
      group_norm(jnp.moveaxis(x, (-1, channel), (0, -1)), groups), (0, -1), (-1, channel)
    )

  def _running(self, channels):
    mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
    return mean, self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

  def _move(self, running, moments, mask):
    if self.is_initializing():
      return
    seen = jnp.any(mask)
    for average, new in zip(running, moments):
      moved = MOMENTUM * average.value + (1 - MOMENTUM) * jax.lax.stop_gradient(new)
      average.value = jnp.where(seen, moved, average.value)
