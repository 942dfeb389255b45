"""Attention for fusion heads: queries that find nobody present read zero."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._attend import attend
from mmfuse.encoders._dense import Dense


def masked_softmax(scores: jax.Array, allowed: jax.Array) -> jax.Array:
  """Softmax over the last axis among allowed entries; all zeros where there is none."""
  # Finite, and zeroed afterwards: an all -inf row would be NaN, forward and backward.
  weights = jax.nn.softmax(jnp.where(allowed, scores.astype(jnp.float32), -1e30))
  return jnp.where(allowed, weights, 0.0)


class MultiHead(nn.Module):
  """Dense q of x [B, Tq, E], k and v of context [B, Tk, E'], `attend`, dense to E."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array, allowed: jax.Array) -> jax.Array:
    width = x.shape[-1]
    deal = lambda h, name: Dense(width, name=name)(h).reshape(*h.shape[:2], self.heads, -1)
    h = attend(deal(x, "query"), deal(context, "key"), deal(context, "value"), allowed)
    return Dense(width, name="out")(h.reshape(x.shape))


class Block(nn.Module):
  """x + attention(norm(x), norm(context)), then x + MLP(norm(x)): GELU, 4 E hidden; [B, T, E]."""

  heads: int

  @nn.compact
  def __call__(
    self, x: jax.Array, allowed: jax.Array, context: jax.Array | None = None
  ) -> jax.Array:
    h = nn.LayerNorm(name="norm1")(x)
    other = h if context is None else nn.LayerNorm(name="norm_context")(context)
    x = x + MultiHead(self.heads, name="attention")(h, other, allowed)
    h = Dense(4 * x.shape[-1], name="up")(nn.LayerNorm(name="norm2")(x))
    return x + Dense(x.shape[-1], name="down")(nn.gelu(h))


def check_width(width: int, heads: int, least: int = 1) -> None:
  """Refuses a width that is not a positive multiple of heads, or below `least`."""
  if heads < 1 or width < least or width % heads:
    raise ValueError(
      f"width must be a multiple of heads and at least {least}, got width {width} and heads {heads}"
    )


def check_counts(**counts: int) -> None:
  """Refuses counts below 1, by name."""
  for name, value in counts.items():
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}")
