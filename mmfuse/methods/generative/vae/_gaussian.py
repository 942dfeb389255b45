"""Diagonal Gaussians and their products: what joins what several encoders say of one latent."""

import functools

import jax
import jax.numpy as jnp

NOBODY = -1e30  # the log precision of an expert that does not vote: its weight is exactly 0


def kl_between(mu: jax.Array, lv: jax.Array, mu_2: jax.Array, lv_2: jax.Array) -> jax.Array:
  r"""KL(N(mu, exp lv) || N(mu_2, exp lv_2)) in nats, summed over the last axis: [..., L] -> [...].

  1/2 \sum_l (lv_2 - lv - 1 + exp(lv - lv_2) + (mu - mu_2)^2 exp(-lv_2)).

  Args:
    mu, lv: mean and log variance of the first.
    mu_2, lv_2: of the second, of the same shape.
  """
  spread = jnp.exp(lv - lv_2) + jnp.square(mu - mu_2) * jnp.exp(-lv_2)
  return 0.5 * jnp.sum(lv_2 - lv - 1.0 + spread, -1)


def product(
  mus: jax.Array, lvs: jax.Array, present: jax.Array, prior: bool | jax.Array = False
) -> tuple[jax.Array, jax.Array]:
  r"""lv = -logsumexp_m(-lv_m), mu = \sum_m softmax_m(-lv_m) mu_m: the product of those present.

  Nothing is added to a variance, so that one expert comes back as it is, and an expert with lv = inf,
  or an absent one, has weight 0 and gradient 0. Where nobody is present: N(0, 1).

  Args:
    mus, lvs: [M, B, L].
    present: bool [M, B].
    prior: N(0, 1) is one more expert: for all rows, or bool [B]; default False.

  Returns (mu, lv), each [B, L].
  """
  also = jnp.broadcast_to(jnp.asarray(prior), present.shape[1:]) | ~present.any(0)
  votes = jnp.concatenate([present, also[None]])[..., None]
  none = jnp.zeros_like(mus[:1])
  precision = jnp.where(votes, jnp.concatenate([-lvs, none]), NOBODY)
  means = jnp.where(votes, jnp.concatenate([mus, none]), 0.0)
  mu = jnp.sum(jax.nn.softmax(precision, 0) * means, 0)
  return mu, -jax.nn.logsumexp(precision, 0)


@jax.custom_vjp
def _votes_times(votes: jax.Array, x: jax.Array) -> jax.Array:
  r"""\sum_m votes[s, m, b] x[m, b, l]: [S, B, L].

  Forward a sum of M arrays, of which XLA makes one pass with what follows; backward products of matrices,
  as a sum over S is slow on CPU.
  """
  each = [jnp.where(votes[:, m, :, None], x[m][None], 0.0) for m in range(len(x))]
  return functools.reduce(jnp.add, each)


_votes_times.defvjp(
  lambda votes, x: (_votes_times(votes, x), votes),
  lambda votes, g: (None, jnp.einsum("smb,sbl->mbl", votes.astype(g.dtype), g)),
)


def products(
  mus: jax.Array, lvs: jax.Array, votes: jax.Array, prior: jax.Array, eps: float = 1e-8
) -> tuple[jax.Array, jax.Array]:
  r"""The products of several sets of experts at once, in the form of MoPoE's and MVTCAE's code.

  T_m = 1 / (exp(lv_m) + eps), mu = \sum_m T_m mu_m / \sum_m T_m, lv = -log \sum_m T_m over the experts
  of a set, the prior's T = 1 / (1 + eps) among them where it votes. A set without any is the prior.

  Args:
    mus, lvs: [M, B, L].
    votes: bool [S, M, B], who is in which set.
    prior: bool [S, B], whether N(0, 1) is one of them.
    eps: what is added to every variance, default 1e-8 (the authors').

  Returns (mu, lv), each [S, B, L].
  """
  seen = votes.any(0)[..., None]  # an expert of no set is not read
  precision = jnp.where(seen, 1.0 / (jnp.exp(jnp.where(seen, lvs, 0.0)) + eps), 0.0)
  weighted = precision * jnp.where(seen, mus, 0.0)
  also = jnp.where(prior | ~votes.any(1), 1.0 / (1.0 + eps), 0.0)[..., None]
  over = lambda x: _votes_times(votes, x)
  total = over(precision) + also
  return over(weighted) / total, -jnp.log(total)
