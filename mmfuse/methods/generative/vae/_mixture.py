r"""Posteriors as mixtures over components: one Gaussian, an expert per modality, one per subset.

log w(z) = \sum_m log p(x_m | z) + log p(z) - log \sum_c weight_c q_c(z): its mean under q is the ELBO,
the log of its mean exponential over K draws the IWAE bound. Every method is judged by these two, at
beta = 1 and weights 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import draws
from mmfuse.methods.generative.vae._families import Family
from mmfuse.methods.generative.vae._seen import Explain, total


class Mixture(NamedTuple):
  """q(z | X) of every row. Where nothing is present it is the prior."""

  family: Family  # of every component
  mu: jax.Array  # [C, B, L]
  lv: jax.Array  # [C, B, L], as `raw` of the family
  weight: jax.Array  # [C, B], sums to 1
  prior: jax.Array  # [1, L], raw scale of p(z), whose location is 0

  @property
  def mean(self) -> jax.Array:
    """E[z] [B, L]."""
    return jnp.sum(self.weight[..., None] * self.mu, 0)

  def log_prob(self, z: jax.Array) -> jax.Array:
    """log q(z | X): z [K, B, L] -> [K, B]."""
    each = self.family.log_prob(z[:, None], self.mu[None], self.lv[None])  # [K, C, B]
    here = self.weight > 0
    log_weight = jnp.log(jnp.where(here, self.weight, 1.0))
    return jax.nn.logsumexp(jnp.where(here[None], each + log_weight[None], -jnp.inf), 1)

  def draw(self, key: jax.Array, component: jax.Array) -> jax.Array:
    """z [K, B, L], draw k of row b from component[k, b] of int [K, B]."""
    samples, rows = component.shape
    noise = draws.rows_first(self.family.noise, key, (samples,), rows, self.mu.shape[-1])
    at = lambda x: jnp.take_along_axis(x, component[..., None], 0)
    return self.family.moved(at(self.mu), at(self.lv), noise)

  def log_weights(
    self, explain: tuple[Explain, ...], present: jax.Array, key: jax.Array, component: jax.Array
  ) -> jax.Array:
    """log w [K, B] of draws from the components named.

    Args:
      explain: log p(x_m | z) of each modality.
      present: bool [M, B].
      key: of the draws.
      component: int [K, B].
    """
    z = self.draw(key, component)
    origin = jnp.zeros_like(self.prior)
    log_p = self.family.log_prob(z, origin[None], self.prior[None])
    return total(explain, present, z) + log_p - self.log_prob(z)

  def latents(self, key: jax.Array, component: jax.Array) -> tuple[jax.Array, ...] | jax.Array:
    """What decoders read of draws from component [K, B]: one [K, B, L] for all modalities."""
    return self.draw(key, component)

  def centre(self) -> jax.Array:
    """What decoders read of the mean [B, L]."""
    return self.mean


def mixture(
  family: Family, mu: jax.Array, lv: jax.Array, available: jax.Array, prior: jax.Array
) -> Mixture:
  """Components that are available, with equal weights; where none is, the prior.

  Args:
    family: of them all.
    mu, lv: [C, B, L].
    available: bool [C, B].
    prior: [1, L], raw scale of p(z).
  """
  nobody = ~available.any(0)
  use = available | nobody[None]
  weight = use / use.sum(0, keepdims=True).astype(jnp.float32)
  alone = nobody[None, :, None]
  mu = jnp.where(alone, 0.0, mu)
  lv = jnp.where(alone, jnp.broadcast_to(prior[None], lv.shape), lv)
  return Mixture(family, mu, lv, weight, prior)


def single(family: Family, mu: jax.Array, lv: jax.Array) -> Mixture:
  """One component [B, L] for all rows, a standard prior."""
  one = jnp.ones((1, mu.shape[0]), jnp.float32)
  return Mixture(family, mu[None], lv[None], one, jnp.zeros((1, mu.shape[-1])))


def every_component(weight: jax.Array) -> jax.Array:
  """int [C, B]: each component once, for a mean over the mixture that draws no component."""
  return jnp.broadcast_to(jnp.arange(weight.shape[0])[:, None], weight.shape)


def drawn_components(key: jax.Array, weight: jax.Array, samples: int) -> jax.Array:
  """int [K, B]: components drawn by their weight [C, B], row by row.

  Args:
    key: of the draw.
    weight: [C, B].
    samples: K.
  """
  u = draws.flat(jax.random.uniform, key, (weight.shape[1], samples)).T
  below = jnp.cumsum(weight, 0)[None] <= u[:, None]  # [K, C, B]
  last = (
    weight.shape[0] - 1 - jnp.argmax((weight > 0)[::-1], 0)
  )  # rounding never leaves the mixture
  return jnp.minimum(below.sum(1), last[None])
