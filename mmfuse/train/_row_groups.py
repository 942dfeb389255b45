"""The rows that an objective is a mean over, in a batch and in the parts that it is split into."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmfuse.core import Batch, label_weight


def groups(batch: Batch, parts: int) -> list[Batch]:
  """The batch as `parts` batches, by the weights of its rows."""
  if parts == 1:
    return [batch]
  place = jnp.cumsum(batch.weight > 0) - 1  # among the rows that count: equal parts of those
  return [
    batch._replace(weight=jnp.where(place % parts == s, batch.weight, 0.0)) for s in range(parts)
  ]


def row_weights(reads: Mapping[str, bool], batch: Batch) -> list[jax.Array]:
  """K weights [B], of the rows that each objective is a mean over.

  reads: {objective: whether it can depend on the label}; those that do not count rows without one.
  """
  known = label_weight(batch)
  weights = {n: known if labelled else batch.weight for n, labelled in reads.items()}
  return [jnp.where(batch.mask[n], w, 0.0) if n in batch.mask else w for n, w in weights.items()]


def part_shares(reads: Mapping[str, bool], batch: Batch, parts: int) -> jax.Array:
  """[S, K]: the part of the rows of each objective that each part holds; 0 where there is none."""
  held = jnp.stack(
    [jnp.stack([w.sum() for w in row_weights(reads, g)]) for g in groups(batch, parts)]
  )
  return held / jnp.maximum(held.sum(0, keepdims=True), 1e-12)


def over_parts(shares: jax.Array, values: jax.Array) -> jax.Array:
  """The mean over the batch from the means over its parts: [S, K] x [S, K, ...] -> [K, ...]."""
  shaped = shares.reshape(*shares.shape, *(1,) * (values.ndim - 2)).astype(values.dtype)
  return (shaped * values).sum(0)
