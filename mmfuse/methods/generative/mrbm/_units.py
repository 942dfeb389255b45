"""Real values as the activations in [0, 1] of the visible units: one affine map per channel.

Values of a set that lie in [0, 1] stay as they are. Others are mapped by mean and spread of the
training rows, and clipped: mapped by the extremes, a long-tailed signal would stay near 1/2.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import masks
from mmfuse.core import Sequence, Unavailable

SPREAD = 2.0  # standard deviations
Ranges = Mapping[str, Mapping[str, jax.Array]]  # {m: {"low": [C], "high": [C]}}, C = last axis


def check_real(inputs: Mapping[str, Any]) -> None:
  """Raises Unavailable for a modality whose values are no real numbers."""
  for m, x in sorted(inputs.items()):
    if isinstance(x, Sequence):
      raise Unavailable(f"its units need rows of one length, and those of {m!r} have their own")
    if not hasattr(x, "dtype"):
      raise Unavailable(f"its units need one array per modality; {m!r} is a {type(x).__name__}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise Unavailable(
        f"its units need real values, and {m!r} holds {x.dtype} (tokens or classes)"
      )


def check_others(modalities: Collection[str]) -> None:
  """Raises Unavailable for a single modality: there is no other to predict it from."""
  if len(modalities) < 2:
    raise Unavailable("it predicts each modality from the others: needs two modalities or more")


def whole_range(inputs: Mapping[str, jax.Array]) -> dict[str, dict[str, jax.Array]]:
  """low = 0, high = 1."""
  return {
    m: {"low": jnp.zeros(x.shape[-1]), "high": jnp.ones(x.shape[-1])}
    for m, x in sorted(inputs.items())
  }


def unit_ranges(inputs: Mapping[str, Any], mask: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """low = mean - 2 std, high = mean + 2 std [C] per channel, of the rows that have the modality.

  low = 0, high = 1 for a modality that lies in [0, 1] already, or that no row has. On the host; the
  channel is the last axis, as in `data.Scaler`.
  """
  found = {}
  for m, x in sorted(inputs.items()):
    rows = np.asarray(x, np.float32)[np.asarray(mask[m])]
    low, high = np.zeros(x.shape[-1], np.float32), np.ones(x.shape[-1], np.float32)
    if rows.size and (rows.min() < 0 or rows.max() > 1):
      axes = tuple(range(rows.ndim - 1))
      mean, spread = rows.mean(axes), SPREAD * rows.std(axes)
      low, high = mean - spread, mean + spread
    found[m] = {"low": jnp.asarray(low), "high": jnp.asarray(high)}
  return found


def to_units(inputs: Mapping[str, Any], mask: Mapping[str, jax.Array], ranges: Ranges):
  """{m: clip((x - low) / (high - low), 0, 1) [B, D_m]} flattened; 0 where absent, NaN never read.

  Args:
    inputs: {m: x_m [B, ...]}.
    mask: {m: bool [B]}, True = present.
    ranges: {m: (low, high)} of the training rows.
  """
  found = {}
  for m, x in sorted(masks.fill(inputs, mask).items()):
    width = ranges[m]["high"] - ranges[m]["low"]
    shape = (1,) * (x.ndim - 1) + (-1,)
    scale = jnp.where(width > 0, width, 1.0).reshape(shape)
    unit = jnp.clip((x - ranges[m]["low"].reshape(shape)) / scale, 0.0, 1.0)
    found[m] = jnp.where(mask[m][:, None], unit.reshape(len(x), -1), 0.0)
  return found
