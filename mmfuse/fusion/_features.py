"""What fusion heads read: features as vectors or sequences, absent rows zero, and who is there."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Sequence, Unavailable
from mmfuse.encoders import steps


def vectors(features: Mapping[str, jax.Array], mask: Mapping[str, jax.Array]) -> dict:
  """{m: [B, D_m]} in sorted order: [B, ...] flattened row by row, absent rows zero."""
  _check(features, mask)
  return {m: x.reshape(x.shape[0], -1) for m, x in _filled(features, mask).items()}


def sequences(features: Mapping[str, Any], mask: Mapping[str, jax.Array]) -> dict[str, Sequence]:
  """{m: values [B, T_m, D_m], length [B]} in sorted order: [B, D] is a sequence of one step.

  Steps of zeros at the end of a row are none: what an encoder leaves of a row that ends early. A
  present row has at least one step, an absent one none, and zeros. A feature may be a
  `core.Sequence` too. Raises Unavailable, a ValueError, for a feature that is neither [B, D] nor
  [B, T, D].
  """
  _check(features, mask)
  return {m: _sequence(m, x, mask[m]) for m, x in _filled(features, mask).items()}


def _sequence(name, x, present):
  values = x.values if isinstance(x, Sequence) else x
  if values.ndim not in (2, 3):
    raise Unavailable(
      f"features of {name!r} must be [B, D] or [B, T, D], got shape {list(values.shape)}"
    )
  if values.ndim == 2:
    return Sequence(values[:, None], present.astype(jnp.int32))
  if isinstance(x, Sequence):
    length, values = x.length, steps(x)[0]
  else:
    place = jnp.arange(1, values.shape[1] + 1)[None]
    length = jnp.max(jnp.where(jnp.any(values != 0, -1), place, 0), 1)
  return Sequence(values, jnp.where(present, jnp.maximum(length, 1), 0))


def within(x: Sequence) -> jax.Array:
  """bool [B, T]: which steps of a sequence count; none of an absent row."""
  return steps(x)[1]


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
      f"modality {lacking[0]!r} not in mask; available: {', '.join(sorted(mask)) or 'none'}"
    )
