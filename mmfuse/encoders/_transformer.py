"""Pre-norm Transformer encoder of sequences."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._norm import Norm
from mmfuse.encoders._sequence import mean_over, steps_of_vectors


def attend(q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array) -> jax.Array:
  """softmax(q k^T / sqrt(d)) v over valid keys; q, k, v [B, T, heads, d], valid [B, T]."""
  scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(q.shape[-1]).astype(q.dtype)
  scores = jnp.where(valid[:, None, None, :], scores.astype(jnp.float32), -1e30)
  return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(v.dtype), v)


class Block(nn.Module):
  """x + attention(norm(x)), then x + MLP(norm(x)) with GELU and a hidden width of 4 D."""

  heads: int
  dropout: float

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array, *, train: bool) -> jax.Array:
    rows, steps, width = x.shape
    drop = lambda a: nn.Dropout(self.dropout, deterministic=not train)(a)
    h = Norm(name="norm1")(x, valid, train=train)
    qkv = nn.Dense(3 * width, name="qkv")(h).reshape(rows, steps, 3, self.heads, -1)
    h = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], valid).reshape(rows, steps, width)
    x = x + drop(nn.Dense(width, name="out")(h))
    h = Norm(name="norm2")(x, valid, train=train)
    h = nn.Dense(width, name="down")(nn.gelu(nn.Dense(4 * width, name="up")(h)))
    return x + drop(h)


class Transformer(nn.Module):
  """x [B, T, C] -> [B, features]: dense to D = features, learned positions, pre-norm blocks, norm.

  x may be a `core.Sequence`; steps beyond the length are not attended to. T is fixed by the first
  batch. Vaswani et al., Attention Is All You Need, NeurIPS 2017; pre-norm: Xiong et al., On Layer
  Normalization in the Transformer Architecture, ICML 2020.

  Args:
    features: D, default 64; sizes are ours.
    layers: blocks, default 2.
    heads: of the attention, default 4.
    dropout: after both halves of a block, default .1 (Vaswani et al.).
    pool: "token" (default), a learned class token; "mean" over the valid steps; "none": all steps
      [B, T, features], invalid ones zero, for a fusion that attends to them.

  Raises:
    ValueError: features that are no multiple of heads.
  """

  reads_lengths = True

  features: int = 64
  layers: int = 2
  heads: int = 4
  dropout: float = 0.1
  pool: str = "token"

  @property
  def step_features(self) -> int | None:
    """The width of a step where the result is a sequence of them."""
    return self.features if self.pool == "none" else None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask  # rows never meet: an absent one cannot reach the others
    self._check()
    values, valid = steps_of_vectors(x)
    normal = nn.initializers.normal(0.02)
    h = nn.Dense(self.features, name="embed")(values)
    h = h + self.param("positions", normal, (1, *h.shape[1:]))
    if self.pool == "token":
      token = self.param("token", normal, (1, 1, self.features))
      h = jnp.concatenate([jnp.broadcast_to(token, (h.shape[0], 1, self.features)), h], 1)
      valid = jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)
    for i in range(self.layers):
      h = Block(self.heads, self.dropout, name=f"block{i}")(h, valid, train=train)
    h = Norm(name="norm")(h, valid, train=train)
    if self.pool == "none":
      return jnp.where(valid[..., None], h, jnp.zeros((), h.dtype))
    return h[:, 0] if self.pool == "token" else mean_over(h, valid)

  def _check(self):
    if self.features % self.heads:
      raise ValueError(f"features ({self.features}) must be a multiple of heads ({self.heads})")
    if self.pool not in ("token", "mean", "none"):
      raise ValueError(f"pool is 'token', 'mean' or 'none', got {self.pool!r}")
