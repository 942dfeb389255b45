"""The losses of DIBS: the bottleneck of each head, and what a discriminator says of pairs of latents."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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


class Pairs(NamedTuple):
  """Which points make a pair: a, b int [n]; sign 1 where D shall take them for alike, -1 where not."""

  a: np.ndarray
  b: np.ndarray
  sign: int


def all_points(latents: jax.Array, prior: jax.Array) -> jax.Array:
  """[2 K + 2, B, L]: z_1..z_K, z_1'..z_K' of latents [2, K, B, L], then r, r' of prior [2, B, L]."""
  return jnp.concatenate([latents.reshape(-1, *latents.shape[2:]), prior])


def prior_pair(heads: int) -> Pairs:
  """(r, r'), two draws of the prior."""
  return Pairs(np.array([2 * heads]), np.array([2 * heads + 1]), 1)


def cross_pairs(heads: int) -> Pairs:
  """(z_i, z_j) with i < j, of the first draws; none of one head."""
  i, j = np.asarray(pairs(heads), int).reshape(-1, 2).T
  return Pairs(i, j, 1)


def prior_latent_pairs(heads: int) -> Pairs:
  """(r, z_i), of the first draws."""
  return Pairs(np.full(heads, 2 * heads), np.arange(heads), -1)


def same_pairs(heads: int) -> Pairs:
  """(z_i, z_i'), two draws of a head."""
  return Pairs(np.arange(heads), heads + np.arange(heads), -1)


def said(
  judge: Judge, points: jax.Array, kinds: Mapping[str, Pairs], weight: jax.Array
) -> dict[str, jax.Array]:
  """{kind: E log D(a, b), or with sign -1 E log(1 - D(a, b))}; 0 of a kind without a pair.

  The mean over both orders, over pairs and over rows; D is asked once about all of them.

  Args:
    judge: logits of D.
    points: of `all_points`.
    kinds: the pairs.
    weight: [B], rows of 0 count nowhere.
  """
  a, b = (np.concatenate([pair[i] for pair in kinds.values()]) for i in (0, 1))
  signs = np.concatenate([np.full(len(pair.a), pair.sign) for pair in kinds.values()])

  logits = judge(points[np.stack([a, b])], points[np.stack([b, a])])  # [2, n, B]
  values = jax.nn.log_sigmoid(signs[None, :, None] * logits).mean(0)
  out, start = {}, 0
  for kind, pair in kinds.items():
    own = values[start : start + len(pair.a)]
    start += len(pair.a)
    out[kind] = objectives.weighted_mean(own.mean(0), weight) if len(own) else jnp.float32(0)
  return out


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
  heads = latents.shape[1]
  kinds = {
    "cross": cross_pairs(heads),
    "prior_latent": prior_latent_pairs(heads),
    "same": same_pairs(heads),
  }
  return said(judge, all_points(latents, prior), kinds, weight)


def discriminator_terms(
  judge: Judge, latents: jax.Array, prior: jax.Array, weight: jax.Array
) -> dict[str, jax.Array]:
  """The terms of L_D, their sum, which D maximises (eq. 4); the latents are constants.

  As printed: two draws of a head are in L_G alone, two of the prior in L_D alone.

  Args:
    judge, latents, prior, weight: as in `generator_terms`.
  """
  heads = latents.shape[1]
  kinds = {
    "prior": prior_pair(heads),
    "cross": cross_pairs(heads),
    "prior_latent": prior_latent_pairs(heads),
  }
  return said(judge, all_points(jax.lax.stop_gradient(latents), prior), kinds, weight)


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
