"""Dropout of one layer; `_kept` draws it once for a whole encoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import draws


class Dropout(nn.Module):
  """x b / (1 - rate), b ~ Bernoulli(1 - rate) an entry, in training; else x. Of x [...], any shape.

  Flax's, number for number, but for the draw: XLA compiles that of a vector several times faster.

  Args:
    rate: in [0, 1]; 1 leaves zeros, without a gradient.

  Raises:
    ValueError: another rate.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    if not 0 <= self.rate <= 1:
      raise ValueError(f"dropout must lie in [0, 1], got {self.rate}")
    if not train or not self.rate:
      return x
    if self.rate == 1:  # x / 0 would be NaN backward
      return jnp.zeros_like(x)
    keep = draws.flat(jax.random.bernoulli, self.make_rng("dropout"), x.shape, p=1 - self.rate)
    return jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))
