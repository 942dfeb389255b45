"""AMCo: masking classes of the branch that the prediction leans on, more with time.

Adaptive mask co-optimization; the rule is that of the BalanceBenchmark code (Xu et al.,
arXiv 2502.10816).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def amco_ratio(l: jax.Array, eps: float = 0.3) -> jax.Array:
  """pt = sin(pi/2 min(eps, l) / eps): the share of classes to mask, from 0 at l = 0 to 1 at eps."""
  return jnp.sin(0.5 * jnp.pi * jnp.minimum(eps, l) / eps)


def num_masked(ratio: jax.Array, num_classes: int) -> jax.Array:
  """int(pt C), int32."""
  # Just below a whole number by rounding in float32 means that number.
  return jnp.floor(ratio * num_classes + 1e-5).astype(jnp.int32)


def class_mask(key: jax.Array, count: jax.Array, num_classes: int) -> jax.Array:
  """bool [C], False for `count` classes drawn at random."""
  return jax.random.permutation(key, num_classes) >= count


def modality_shares(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], weight: jax.Array
) -> jax.Array:
  """[M]: what each branch {m: [B, C]} gets of one softmax over all M * C logits, a mean over rows.

  In the order sorted(m); absent modalities of a row are left out of its softmax. Sums to 1 over
  rows that have any modality, and is 0 where no row does.
  """
  names = sorted(logits)
  stacked = jnp.stack([logits[m].astype(jnp.float32) for m in names], 1)  # [B, M, C]
  present = jnp.stack([mask[m] for m in names], 1)
  totals = jnp.where(present, jax.nn.logsumexp(stacked, axis=-1), -jnp.inf)
  any_ = present.any(1)
  shares = jax.nn.softmax(jnp.where(any_[:, None], totals, 0.0), axis=-1)
  weight = jnp.where(any_, weight, 0.0)[:, None]
  return jnp.sum(shares * weight, 0) / jnp.maximum(jnp.sum(weight), 1e-12)
