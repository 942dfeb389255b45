"""Sequences with their own lengths, and pooling over the valid steps."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def unpack(x: Any) -> tuple[jax.Array, jax.Array | None]:
  """(values [B, T, C], lengths [B] or None) of an array or of {"values": ..., "length": int [B]}.

  Lengths are clipped to 1..T, so that an absent row, filled with zeros, is harmless.
  Raises ValueError for another rank or other names.
  """
  if not isinstance(x, Mapping):
    values, lengths = x, None
  elif set(x) == {"values", "length"}:
    values, lengths = x["values"], x["length"]
  else:
    raise ValueError(f"a sequence is an array or {{'values', 'length'}}, got {sorted(x)}")
  if values.ndim != 3:
    raise ValueError(f"a sequence encoder takes [B, T, C], got shape {list(values.shape)}")
  return values, None if lengths is None else jnp.clip(lengths, 1, values.shape[1])


def valid_steps(values: jax.Array, lengths: jax.Array | None) -> jax.Array:
  """bool [B, T]: which steps lie within the length."""
  rows, steps = values.shape[:2]
  if lengths is None:
    return jnp.ones((rows, steps), bool)
  return jnp.arange(steps)[None, :] < lengths[:, None]


def mean_over(x: jax.Array, valid: jax.Array) -> jax.Array:
  """Mean of x [B, T, D] over the steps where `valid` [B, T]; zeros where there is none."""
  kept = jnp.where(valid[..., None], x, jnp.zeros((), x.dtype))
  return jnp.sum(kept, 1) / jnp.maximum(jnp.sum(valid, 1, keepdims=True), 1).astype(x.dtype)
