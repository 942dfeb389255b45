"""Normalisation that knows which rows are present: batch, layer, group or none."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

KINDS = ("layer", "batch", "group", "instance", "none")
MOMENTUM = 0.9  # torch's momentum 0.1
EPSILON = 1e-5  # torch's default; Flax's own layers default to 1e-5 (batch) and 1e-6 (layer, group)


def along(vector: jax.Array, axis: int, ndim: int) -> jax.Array:
  """`vector` [n] with `ndim` axes, n at `axis` and 1 elsewhere."""
  return jnp.expand_dims(vector, [a for a in range(ndim) if a != axis % ndim])


def batch_moments(x: jax.Array, mask: jax.Array, row: int = 0, channel: int = -1):
  """Mean and biased variance [C] over the present rows and all positions of x, in float32.

  `row`, `channel`: the axes of the rows (`mask` bool [B]) and of the channels. With nobody present
  all rows count, so that nothing divides by zero. Sums run over the whole array, hence over the
  whole device mesh under `jit`.
  """
  row, channel = row % x.ndim, channel % x.ndim
  rows = mask | ~jnp.any(mask)
  positions = tuple(a for a in range(x.ndim) if a not in (row, channel))
  count = jnp.sum(rows, dtype=jnp.float32) * (x.size // (x.shape[row] * x.shape[channel]))
  first = int(row > channel)  # the axis of the rows once the positions are summed

  def total(y):  # the positions first, so that the choice of rows costs [B, C]
    return jnp.sum(jnp.where(along(rows, first, 2), jnp.sum(y, positions), 0.0), first)

  x = x.astype(jnp.float32)
  mean = total(x) / count
  return mean, total(jnp.square(x - along(mean, channel, x.ndim))) / count


def view_moments(x: jax.Array, mask: jax.Array, views: int, channel: int):
  """`batch_moments` [V, C] of V equal runs of rows, and `beside` that puts a [V, C] beside x.

  x: [V B, ..., C], or [..., C, ..., V B] where `channel` is not the last axis; mask: bool [B], of each run.
  """
  last = channel != x.ndim - 1
  row = x.ndim - 1 if last else 0
  positions = tuple(a for a in range(x.ndim) if a not in (row, channel))
  rows, size = mask | ~jnp.any(mask), x.shape[row] // views
  count = jnp.sum(rows, dtype=jnp.float32) * (x.size // (x.shape[row] * x.shape[channel]))

  def total(y):
    y = jnp.sum(y, positions)
    runs = (y.T if last else y).reshape(views, size, -1)
    return jnp.sum(jnp.where(rows[None, :, None], runs, 0.0), 1)

  def beside(v):
    v = jnp.repeat(v, size, 0)
    return jnp.expand_dims(v.T if last else v, positions)

  x = x.astype(jnp.float32)
  mean = total(x) / count
  return mean, total(jnp.square(x - beside(mean))) / count, beside


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
    return jnp.matmul(rows, vector[:, None], precision="highest").reshape(*x.shape[:-1], 1)
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
  """

  kind: str = "layer"
  channel: int = -1
  views: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
    if self.kind not in KINDS:
      raise ValueError(f"norm is one of {', '.join(KINDS)}, got {self.kind!r}")
    if self.kind == "none":
      return x
    channel = self.channel % x.ndim
    shape = (x.shape[channel],)
    scale = self.param("scale", nn.initializers.ones, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
    if self.kind == "layer":
      return layer_norm(x.astype(jnp.float32), scale, bias, channel).astype(x.dtype)
    if self.kind == "batch" and self.views > 1 and train:
      mean, var, beside = self._side_by_side(x, mask, channel)
      factor = beside(jax.lax.rsqrt(var + EPSILON) * scale[None])
      return ((x - beside(mean)) * factor + along(bias, channel, x.ndim)).astype(x.dtype)
    scale, bias = along(scale, channel, x.ndim), along(bias, channel, x.ndim)
    if self.kind == "batch":  # one factor per channel: one product less per position
      mean, var = (along(a, channel, x.ndim) for a in self._moments(x, mask, train, channel))
      return ((x - mean) * (jax.lax.rsqrt(var + EPSILON) * scale) + bias).astype(x.dtype)
    normal = self._instance(x) if self.kind == "instance" else self._grouped(x, mask, channel)
    return (normal * scale + bias).astype(x.dtype)

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

  def _side_by_side(self, x, mask, channel):
    running = self._running(x.shape[channel])
    mean, var, beside = view_moments(x, mask, self.views, channel)
    for moments in zip(mean, var):
      self._move(running, moments, mask)
    return mean, var, beside

  def _moments(self, x, mask, train, channel):
    running = self._running(x.shape[channel])
    if not train:
      return tuple(r.value for r in running)
    if mask.ndim > 1:  # every position is a row of its own
      x, mask, channel = x.reshape(-1, x.shape[-1]), mask.reshape(-1), 1
    moments = batch_moments(x, mask, 0 if channel == x.ndim - 1 else -1, channel)
    self._move(running, moments, mask)
    return moments

  def _move(self, running, moments, mask):
    if self.is_initializing():
      return
    seen = jnp.any(mask)
    for average, new in zip(running, moments):
      moved = MOMENTUM * average.value + (1 - MOMENTUM) * jax.lax.stop_gradient(new)
      average.value = jnp.where(seen, moved, average.value)
