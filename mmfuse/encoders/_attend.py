"""Attention with its gradient written down, shared by encoders and fusion heads."""

import math

import jax
import jax.numpy as jnp

NOWHERE = -1e30  # finite: a row of -inf alone would be NaN, forward and backward


def _product(a: jax.Array, b: jax.Array, over: tuple[int, int]) -> jax.Array:
  """a [B, heads, ., .] times b, contracted over these axes, in float32."""
  dims = ((over[:1], over[1:]), ((0, 1), (0, 1)))
  return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _heads_first(x: jax.Array) -> jax.Array:
  """[B, T, heads, d] to [B, heads, T, d], and back."""
  return x.swapaxes(1, 2)


def split_heads(qkv: jax.Array, heads: int) -> list[jax.Array]:
  """q, k, v, each [B, T, heads, d], of what a layer made of them side by side, [B, T, 3 heads d]."""
  return [x.reshape(*x.shape[:2], heads, -1) for x in jnp.split(qkv, 3, -1)]


@jax.custom_vjp
def attend(q: jax.Array, k: jax.Array, v: jax.Array, allowed: jax.Array | None) -> jax.Array:
  """softmax(q k^T / sqrt(d)) v over allowed keys, 0 where none is; softmax in float32.

  The gradient is written down: it keeps e^(s - max) and the norms of its rows, so that neither pass
  walks over [B, heads, Tq, Tk] more often than it has to, and its products with d columns are
  transposed (on CPU they are faster so). It can be differentiated again; `jax.jvp` of it cannot.

  Args:
    q: [B, Tq, heads, d].
    k, v: [B, Tk, heads, d].
    allowed: bool [B, Tq, Tk], or broadcasting to it; None = all.

  Returns:
    [B, Tq, heads, d], of v's type.
  """
  return _forward(q, k, v, allowed)[0]


def _forward(q, k, v, allowed):
  kind, scale = v.dtype, 1 / math.sqrt(q.shape[-1])
  scores = _product(_heads_first(q) * scale, _heads_first(k), (3, 3))
  if allowed is not None:
    scores = jnp.where(allowed[:, None], scores, NOWHERE)
  highest = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
  shares = jnp.exp(scores - highest)  # 0 where not allowed, but for queries that may read no key
  total = jnp.sum(shares, -1, keepdims=True)
  norm = jnp.where(highest == NOWHERE, 0.0, 1 / total)
  shares = shares.astype(kind)
  out = _heads_first(_product(shares, _heads_first(v), (3, 2)) * norm).astype(kind)
  return out, (q, k, v, shares, norm, out)


def _backward(kept, g):
  q, k, v, shares, norm, out = kept
  scale = 1 / math.sqrt(q.shape[-1])
  same = _heads_first(jnp.sum((g * out).astype(jnp.float32), -1, keepdims=True)) * norm
  g = (_heads_first(g) * norm).astype(v.dtype)
  scores = (shares * (_product(g, _heads_first(v), (3, 3)) - same)).astype(v.dtype)
  turned = lambda x: x.swapaxes(2, 3)
  to_keys = lambda x, of: _product(turned(x), of, (3, 2)).transpose(0, 3, 1, 2)
  dq = _heads_first(_product(scores, _heads_first(k) * scale, (3, 2)))
  dk = to_keys(_heads_first(q) * scale, scores)
  dv = to_keys(g, shares)
  return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


attend.defvjp(_forward, _backward)
