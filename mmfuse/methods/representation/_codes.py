r"""Information of Bernoulli codes: bounds from a batch, the exact value of few bits, divergences.

The pure half of `_cmimh.py`. A code b [L] of a row with logits a is drawn bit by bit, P(b_l = 1) =
sigmoid(a_l). Log-sigmoids of logits stand where the equations have logarithms of probabilities.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import draws, objectives
from mmfuse.fusion._late import named_key
from mmfuse.methods.representation._towers import both

_NOTHING = -1e30  # the logarithm of a row that does not count: finite, so that gradients are


def code_log_prob(codes: jax.Array, logits: jax.Array) -> jax.Array:
  r"""log p(b_i | x_j) [B, C] = \sum_l b_il log p_jl + (1 - b_il) log(1 - p_jl).

  Args:
    codes: b [B, L] in 0..1.
    logits: a [C, L], p = sigmoid(a).
  """
  product = lambda x, y: jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
  return product(codes, jax.nn.log_sigmoid(logits)) + product(
    1.0 - codes, jax.nn.log_sigmoid(-logits)
  )


def information_bound(codes: jax.Array, logits: jax.Array, weight: jax.Array) -> jax.Array:
  r"""mean_i [ log p(b_i | x_i) - log mean_j p(b_i | x_j) ], at most log B; a scalar in nats.

  With the codes of the same modality a lower bound of I(X; B), with those of another one of the
  information that they have of x.

  Args:
    codes: b [B, L].
    logits: of p( | x) [B, L], row by row.
    weight: [B]; both means are weighted by it, rows of weight 0 are in neither.
  """
  counts = weight > 0
  share = weight / jnp.where(weight.sum() > 0, weight.sum(), 1.0)
  log_share = jnp.where(counts, jnp.log(jnp.where(counts, share, 1.0)), _NOTHING)
  log_p = code_log_prob(codes, logits)
  marginal = jax.nn.logsumexp(log_p + log_share[None], axis=1)
  return objectives.weighted_mean(jnp.diagonal(log_p) - marginal, weight)


def code_divergence(logits: jax.Array, other: jax.Array) -> jax.Array:
  """KL(Bern(p) || Bern(q)) [B] in nats, added up over bits, of logits of p and of q [B, L]."""
  p = jax.nn.sigmoid(logits)
  ones = jax.nn.log_sigmoid(logits) - jax.nn.log_sigmoid(other)
  zeros = jax.nn.log_sigmoid(-logits) - jax.nn.log_sigmoid(-other)
  return (p * ones + (1.0 - p) * zeros).sum(-1)


def draw_codes(key: jax.Array, logits: jax.Array) -> jax.Array:
  """b [B, L] in {0, 1}, P(b = 1) = sigmoid(a), straight-through: its gradient is that of sigmoid(a)."""
  p = jax.nn.sigmoid(logits)
  drawn = (draws.flat(jax.random.uniform, key, logits.shape) < p).astype(p.dtype)
  return drawn + p - jax.lax.stop_gradient(p)


def exact_information(logits: jax.Array) -> jax.Array:
  """I(X; B) in nats for X uniform over the rows of logits [B, L], from all 2^L codes (L <= 16).

  Raises ValueError for more bits.
  """
  bits = logits.shape[1]
  if bits > 16:
    raise ValueError(f"all codes of at most 16 bits are counted, these are {bits}")
  every = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1
  log_p = code_log_prob(jnp.asarray(every, logits.dtype), logits)  # [2^L, B]
  log_mean = jax.nn.logsumexp(log_p, axis=1, keepdims=True) - jnp.log(logits.shape[0])
  return (jnp.exp(log_p) * (log_p - log_mean)).sum(0).mean()


def information_terms(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], weight: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
  r"""{"intra", "inter", "gap"}: sums over modalities, ordered pairs and pairs of modalities.

  intra = \sum_m bound(b_m, a_m), inter = \sum_{m, n} bound(b_m, a_n), gap = \sum_{m < n} mean_i
  [KL(p_m || p_n) + KL(p_n || p_m)]; each over the rows that have what it reads.

  Args:
    logits: {m: a_m [B, L]}.
    mask: {m: bool [B]}.
    weight: [B], of the rows.
    key: of the codes' draws.
  """
  names = sorted(logits)
  codes = {m: draw_codes(named_key(key, m), logits[m]) for m in names}
  intra = [information_bound(codes[m], logits[m], both(mask, weight, m, m)) for m in names]
  inter = [
    information_bound(codes[m], logits[n], both(mask, weight, m, n))
    for m in names
    for n in names
    if m != n
  ]
  gap = [
    objectives.weighted_mean(code_divergence(logits[m], logits[n]), both(mask, weight, m, n))
    for m in names
    for n in names
    if m != n
  ]
  return {"intra": sum(intra), "inter": sum(inter), "gap": sum(gap)}  # type: ignore[dict-item]
