"""Sequences with their own lengths: the one reader, and means over the steps that count."""

from typing import Any

import jax
import jax.numpy as jnp

from mmfuse.core import Sequence


def steps(x: Any) -> tuple[jax.Array, jax.Array]:
  """(values [B, T, ...], valid bool [B, T]) of an array, or of a `core.Sequence` with lengths.

  Step t of a row is valid where t < length; the values of the others come back as zeros, by a
  select, so that NaN there reaches neither a result nor a gradient. All steps of an array are
  valid. Length 0, an absent row, has none. Raises ValueError for an array without an axis of time.
  """
  values = x.values if isinstance(x, Sequence) else x
  if values.ndim < 2:
    raise ValueError(f"a sequence is [B, T, ...], got shape {list(values.shape)}")
  valid = within(length_of(x), values.shape[:2])
  return (zero_after(values, x.length) if isinstance(x, Sequence) else values), valid


def steps_of_vectors(x: Any) -> tuple[jax.Array, jax.Array]:
  """As `steps`, for [B, T, C] alone. Raises ValueError for another rank."""
  values, valid = steps(x)
  if values.ndim != 3:
    raise ValueError(f"a sequence encoder takes [B, T, C], got shape {list(values.shape)}")
  return values, valid


def length_of(x: Any) -> jax.Array | None:
  """The lengths int [B] of a `core.Sequence`; None of an array, all of whose steps count."""
  return x.length if isinstance(x, Sequence) else None


def as_array(x: Any) -> Any:
  """What an encoder of arrays gets: a `core.Sequence` as its values, zero after each row's end."""
  return steps(x)[0] if isinstance(x, Sequence) else x


def within(length: jax.Array | None, size: tuple[int, ...]) -> jax.Array:
  """bool [B, T] for size (B, T): which steps lie within the length [B]; None = all."""
  if length is None:
    return jnp.ones(size, bool)
  return jnp.arange(size[1])[None, :] < length[:, None]


def zero_after(x: jax.Array, length: jax.Array | None) -> jax.Array:
  """x [B, T, ...] with zeros from each row's length [B] on; as it is for None."""
  if length is None:
    return x
  valid = within(length, x.shape[:2]).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
  return jnp.where(valid, x, jnp.zeros((), x.dtype))


def mean_over(x: jax.Array, valid: jax.Array) -> jax.Array:
  """Mean of x [B, T, D] over the steps where `valid` [B, T]; zeros where there is none."""
  kept = jnp.where(valid[..., None], x, jnp.zeros((), x.dtype))
  return jnp.sum(kept, 1) / jnp.maximum(jnp.sum(valid, 1, keepdims=True), 1).astype(x.dtype)
