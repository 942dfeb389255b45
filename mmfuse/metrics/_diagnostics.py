"""Where gradients agree: norms, cosine and conflict of the fused and each modality's objective."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import tree


def _cosine(product: jax.Array, square_a: jax.Array, square_b: jax.Array) -> jax.Array:
  scale = jnp.sqrt(square_a) * jnp.sqrt(square_b)
  cosine = jnp.where(scale > 0, product / jnp.where(scale > 0, scale, 1.0), 0.0)
  return jnp.clip(cosine, -1.0, 1.0)


def cosine(a: Any, b: Any) -> jax.Array:
  """<a, b> / (|a| |b|) over all leaves of two trees, float32; 0 where either is all zeros."""
  return _cosine(tree.dot(a, b), tree.dot(a, a), tree.dot(b, b))


def conflict(stacked: Any, owners: Any, names: Sequence[str] | None = None) -> dict[str, jax.Array]:
  """How the fused objective's gradient and modality m's own agree on the leaves of encoder m.

  Args:
    stacked: gradients with leaves [K, *param], one row per objective.
    owners: a tree of `tree.Owner`, as from `tree.owners_of`.
    names: the K objectives in order; default: "fused", then the sorted modalities with an encoder.

  Returns:
    float32 scalars "norm_fused/<m>", "norm/<m>" (L2 norms of the two rows), "cosine/<m>" (0 where
    either row is zero) and "conflict/<m>" (1 where the cosine is negative, else 0: its mean is the
    conflict rate). Entries that need an objective which is not in `names` are left out.

  Raises:
    ValueError: the number of names is not K.
  """
  leaves, tags = jax.tree.leaves(stacked), jax.tree.leaves(owners)
  encoders: dict[str, list[jax.Array]] = {}
  for leaf, tag in zip(leaves, tags, strict=True):
    if tag.modality is not None and tag.part == "encoder":
      encoders.setdefault(tag.modality, []).append(leaf)
  names = (tree.FUSED, *sorted(encoders)) if names is None else tuple(names)
  if leaves and leaves[0].shape[0] != len(names):
    raise ValueError(
      f"gradients are stacked over {leaves[0].shape[0]} objectives, but {len(names)} are named: "
      f"{', '.join(names)}"
    )
  out = {}
  for m, own in sorted(encoders.items()):
    rows = [names.index(n) for n in (tree.FUSED, m) if n in names]
    if not rows:
      continue
    gram = tree.gram([jnp.stack([leaf[k] for k in rows]) for leaf in own])
    for k, name in enumerate(names[r] for r in rows):
      out[f"norm_fused/{m}" if name == tree.FUSED else f"norm/{m}"] = jnp.sqrt(gram[k, k])
    if len(rows) == 2:
      out[f"cosine/{m}"] = _cosine(gram[0, 1], gram[0, 0], gram[1, 1])
      out[f"conflict/{m}"] = (out[f"cosine/{m}"] < 0).astype(jnp.float32)
  return out
