"""Cross-entropy of dense predictions, a class for every position."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmfuse.names import VOID
from mmfuse.objectives._cross_entropy import cross_entropy_loss


def dense_loss(
  logits: jax.Array,
  label: jax.Array,
  weight: jax.Array,
  *,
  class_weights: Sequence[float] | None = None,
  void: int = VOID,
) -> jax.Array:
  r"""\sum_{i,p} w_i v_{y_ip} CE(z_ip, y_ip) / \sum_{i,p} w_i v_{y_ip}, over positions p of rows i.

  In float32; exactly 0 where no position counts, as where no row has a weight.

  Args:
    logits: z [B, ..., C].
    label: y int [B, ...], classes 0..C-1 or `void`. Truth that counts from 1, with 0 = void, is label - 1.
    weight: w [B] of the rows; those of weight 0 are not read.
    class_weights: v [C], default 1 each.
    void: default -1.
  """
  known = (label != void) & (weight > 0).reshape((-1,) + (1,) * (label.ndim - 1))
  losses, label = _of_places(logits, label, known)
  each = weight.reshape((-1,) + (1,) * (label.ndim - 1)).astype(jnp.float32)
  if class_weights is not None:
    each = each * jnp.asarray(class_weights, jnp.float32)[label]
  each = jnp.where(known, each, 0.0)
  total = each.sum()
  return jnp.sum(each * losses) / jnp.where(total > 0, total, 1.0)


def _of_places(logits: jax.Array, label: jax.Array, known: jax.Array):
  """(cross-entropy, label) of every position; where it is not known nothing is read, and the label is 0."""
  label = jnp.where(known, label, 0)
  logits = jnp.where(known[..., None], logits.astype(jnp.float32), 0.0)
  return cross_entropy_loss(logits, label), label


def dense_rows(logits: jax.Array, label: jax.Array, void: int = VOID) -> jax.Array:
  """The mean cross-entropy [B] over the positions of each row that are not void; 0 where all are.

  Args:
    logits: [B, ..., C].
    label: int [B, ...], classes 0..C-1 or `void`.
    void: default -1.
  """
  known = label != void
  losses, _ = _of_places(logits, label, known)
  axes = tuple(range(1, label.ndim))
  count = known.sum(axes)
  return jnp.where(known, losses, 0.0).sum(axes) / jnp.maximum(count, 1)


def multi_scale_loss(
  logits: Sequence[jax.Array],
  labels: Sequence[jax.Array],
  weight: jax.Array,
  **options,
) -> jax.Array:
  """The sum over scales of `dense_loss`, each with its own mean.

  Args:
    logits: of each scale, [B, ..., C].
    labels: of each scale, int [B, ...].
    weight: [B] of the rows.
    options: of `dense_loss`.
  """
  found = [dense_loss(z, y, weight, **options) for z, y in zip(logits, labels, strict=True)]
  return sum(found, jnp.zeros((), jnp.float32))
