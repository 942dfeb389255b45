"""The mean of the uni-modal logits: fusion without parameters, for labels of any kind."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmfuse.core import Outputs


def mean_logits(outputs: Outputs, mask: Mapping[str, jax.Array]) -> Outputs:
  """logits = the mean of z_m [B, C] over the present modalities; 0 where none is present."""
  names = sorted(outputs.unimodal_logits)
  present = jnp.stack([mask[m] for m in names])[..., None]
  stacked = jnp.stack([outputs.unimodal_logits[m] for m in names])
  total = jnp.where(present, stacked, 0.0).sum(0)
  return outputs._replace(logits=total / jnp.maximum(present.sum(0), 1))
