"""The losses of DIBS: the bottleneck of each head, and what a discriminator says of pairs of latents."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.fusion import draw_gaussian
from mmfuse.fusion._early import mlp
from mmfuse.methods.ensembles._members import pairs

# (a, b [..., B, L]) -> logits [..., B] of D(a, b): positive where they look like one distribution
Judge = Callable[[jax.Array, jax.Array], jax.Array]


class PairDiscriminator(nn.Module):
  """(pair [..., 2 L]) -> logits [...]: an MLP; default two hidden layers of 128."""

  hidden: tuple[int, ...] = (128, 128)

  @nn.compact
  def __call__(self, pair: jax.Array) -> jax.Array:
    return mlp(pair, self.hidden, 1)[..., 0]


def draw_latents(mu: jax.Array, logvar: jax.Array, noise: jax.Array) -> jax.Array:
  """z[s, k] = mu_k + exp(logvar_k / 2) noise[s, k]: [K, B, L] and noise [2, K, B, L] -> [2, K, B, L]."""
  return jax.vmap(draw_gaussian, (None, None, 0))(mu, logvar, noise)


def _said(judge: Judge, a: jax.Array, b: jax.Array, sign: int) -> jax.Array:
  """log D(a, b), or with sign -1 log(1 - D(a, b)), the mean over both orders: [n, B]."""
  both = jax.nn.log_sigmoid(sign * jnp.stack([judge(a, b), judge(b, a)]))
  return both.mean(0)


def _mean(values: jax.Array, weight: jax.Array) -> jax.Array:
  """Over pairs and over the rows of `weight` above 0; 0 without a pair."""
  if not len(values):
    return jnp.zeros((), jnp.float32)
  return objectives.weighted_mean(values.mean(0), weight)


def prior_pair(judge: Judge, prior: jax.Array, weight: jax.Array) -> jax.Array:
  """E log D(r, r') of two draws of the prior [2, B, L]."""
  return _mean(_said(judge, prior[:1], prior[1:], 1), weight)


def cross_pairs(judge: Judge, latents: jax.Array, weight: jax.Array) -> jax.Array:
  """E_{i < j} log D(z_i, z_j) of the first draws of latents [2, K, B, L]; 0 of one head."""
  chosen = pairs(latents.shape[1])
  if not chosen:
    return jnp.zeros((), jnp.float32)
  i, j = map(jnp.asarray, zip(*chosen))
  return _mean(_said(judge, latents[0, i], latents[0, j], 1), weight)


def prior_latent_pairs(
  judge: Judge, latents: jax.Array, prior: jax.Array, weight: jax.Array
) -> jax.Array:
  """E_i log(1 - D(r, z_i)) of the first draws.

  Args:
    judge: logits of D.
    latents: [2, K, B, L].
    prior: [2, B, L].
    weight: [B].
  """
  alike = jnp.broadcast_to(prior[:1], latents[0].shape)
  return _mean(_said(judge, alike, latents[0], -1), weight)


def same_pairs(judge: Judge, latents: jax.Array, weight: jax.Array) -> jax.Array:
  """E_i log(1 - D(z_i, z_i')) of two draws of a head."""
  return _mean(_said(judge, latents[0], latents[1], -1), weight)


def generator_terms(
  judge: Judge, latents: jax.Array, prior: jax.Array, weight: jax.Array
) -> dict[str, jax.Array]:
  """The terms of L_G, their sum, which encoder and heads minimise (eq. 3 of the paper).

  Args:
    judge: logits of D.
    latents: [2, K, B, L], two draws of each head.
    prior: [2, B, L], two draws of N(0, I).
    weight: [B], rows of 0 count nowhere.
  """
  return {
    "cross": cross_pairs(judge, latents, weight),
    "prior_latent": prior_latent_pairs(judge, latents, prior, weight),
    "same": same_pairs(judge, latents, weight),
  }


def discriminator_terms(
  judge: Judge, latents: jax.Array, prior: jax.Array, weight: jax.Array
) -> dict[str, jax.Array]:
  """The terms of L_D, their sum, which D maximises (eq. 4); the latents are constants.

  As printed: two draws of a head are in L_G alone, two of the prior in L_D alone.

  Args:
    judge, latents, prior, weight: as in `generator_terms`.
  """
  latents = jax.lax.stop_gradient(latents)
  return {
    "prior": prior_pair(judge, prior, weight),
    "cross": cross_pairs(judge, latents, weight),
    "prior_latent": prior_latent_pairs(judge, latents, prior, weight),
  }


def bottleneck(
  losses: jax.Array,
  kl: jax.Array,
  weights: tuple[jax.Array, jax.Array],
  alpha: float = 1.0,
  beta: float = 0.0,
) -> jax.Array:
  r"""L = mean_n \sum_k (alpha log q(y_n | zt_k) - beta KL_kn), to be maximised (eq. 7).

  Args:
    losses: -log q [K, B].
    kl: KL(p(zt_k | x) || N(0, I)) [K, B].
    weights: ([B] of the rows whose label counts, [B] of the rows that count).
    alpha, beta: defaults 1 and 0: the pairs with the prior stand in for KL.
  """
  known, every = weights
  likelihood = objectives.weighted_mean(-losses.sum(0), known)
  return alpha * likelihood - beta * objectives.weighted_mean(kl.sum(0), every)
