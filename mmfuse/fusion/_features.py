"""What fusion heads read: features as vectors or sequences, absent rows zero, and who is there."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Unavailable


def vectors(features: Mapping[str, jax.Array], mask: Mapping[str, jax.Array]) -> dict:
  """{m: [B, D_m]} in sorted order: [B, ...] flattened row by row, absent rows zero."""
  _check(features, mask)
  return {m: x.reshape(x.shape[0], -1) for m, x in _filled(features, mask).items()}


def sequences(features: Mapping[str, jax.Array], mask: Mapping[str, jax.Array]) -> dict:
  """{m: [B, T_m, D_m]} in sorted order: [B, D] is a sequence of one step; absent rows are zero.

  Raises Unavailable, a ValueError, for a feature that is neither [B, D] nor [B, T, D].
  """
  _check(features, mask)
  filled = _filled(features, mask)
  for m, x in filled.items():
    if x.ndim not in (2, 3):
      raise Unavailable(f"features of {m!r} must be [B, D] or [B, T, D], got shape {list(x.shape)}")
  return {m: x if x.ndim == 3 else x[:, None] for m, x in filled.items()}


def presence(names: Iterable[str], mask: Mapping[str, jax.Array]) -> jax.Array:
  """The mask {m: bool [B]} of `names` as one array bool [B, M], its columns in order sorted(m)."""
  return jnp.stack([mask[m] for m in sorted(names)], -1)


def _filled(features, mask):
  return masks.fill({m: features[m] for m in sorted(features)}, mask)


def _check(features, mask):
  if not features:
    raise ValueError("a fusion needs the features of at least one modality, got none")
  lacking = sorted(set(features) - set(mask))
  if lacking:
    raise ValueError(
        f"modality {lacking[0]!r} not in mask; available: {', '.join(sorted(mask)) or 'none'}")
