"""How far a diagonal Gaussian is from the standard one."""

import jax
import jax.numpy as jnp


def kl_losses(mean: jax.Array, logvar: jax.Array) -> jax.Array:
  r"""KL(N(mu, sigma^2) || N(0, 1)) = 1/2 \sum_j (sigma_j^2 + mu_j^2 - ln sigma_j^2 - 1), in nats.

  mean, logvar = ln sigma^2: [..., D], j runs over D. Returns [...] float32: [B] of vectors, [B, H, W]
  of maps. 0, with gradient 0, where mu = 0 and sigma = 1.
  """
  mean, logvar = mean.astype(jnp.float32), logvar.astype(jnp.float32)
  return 0.5 * jnp.sum(jnp.exp(logvar) + jnp.square(mean) - logvar - 1.0, axis=-1)
