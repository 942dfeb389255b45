"""ReconBoost: one modality at a time learns what the others still get wrong.

Hua, Xu, Bao, Yang and Huang, ReconBoost: Boosting Can Achieve Modality Reconcilement, ICML 2024.
"""

import jax
import jax.numpy as jnp

from mmfuse import choose, objectives


def reconboost_loss(
  logits: jax.Array,
  ensemble: jax.Array,
  label: jax.Array,
  *,
  own: float = 5.0,
  residual: float = 1.0,
) -> jax.Array:
  r"""-(own - residual softmax(ensemble)[y]) log softmax(z)[y] / C per row, [B] float32.

  The better the ensemble of the other modalities already is on a row, the less the active one is
  asked for. The mean over classes in the released code gives the division by C. No gradient flows
  into the ensemble.

  Args:
    logits: z [B, C] of the active modality.
    ensemble: [B, C], boost_rate times the sum of the other modalities' logits.
    label: int [B].
    own, residual: weights of the two terms, defaults 5 and 1 (BalanceBenchmark).
  """
  log_p = -objectives.row_losses(logits, label)
  known = choose.along(jax.nn.softmax(ensemble.astype(jnp.float32)), label, -1)
  weight = own - residual * jax.lax.stop_gradient(known)
  return -weight * log_p / logits.shape[-1]


def agreement_loss(logits: jax.Array, previous: jax.Array, *, attached: bool = False) -> jax.Array:
  """Mean over classes of (softmax(z) - softmax(z_prev))^2 per row, [B].

  z_prev [B, C]: the modality whose turn was before, without gradient. The released code detaches z
  as well, so that its term is a constant; `attached` lets it move z.
  """
  logits = logits if attached else jax.lax.stop_gradient(logits)
  p = jax.nn.softmax(logits.astype(jnp.float32))
  q = jax.nn.softmax(jax.lax.stop_gradient(previous).astype(jnp.float32))
  return jnp.mean(jnp.square(p - q), axis=-1)
