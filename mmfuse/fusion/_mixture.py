"""Mixture of experts: a gate says whose distribution over the classes to believe.

Jacobs, Jordan, Nowlan, Hinton: Adaptive Mixtures of Local Experts, Neural Computation 1991.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._early import concat_vectors
from mmfuse.fusion._features import presence, vectors


def mixture_logits(gate: jax.Array, experts: jax.Array, present: jax.Array) -> jax.Array:
  r"""log \sum_m pi_m softmax(z_m), pi = softmax(gate) over those present; log(1 / C) for nobody.

  gate [B, M]; experts z [B, M, C]; present bool [B, M]. Returns [B, C], log-probabilities.
  """
  anybody = present.any(-1, keepdims=True)
  # With nobody all gates count, of constant experts: finite, and without gradient.
  counted = present | ~anybody
  share = jax.nn.log_softmax(jnp.where(counted, gate, -1e30))
  votes = share[..., None] + jax.nn.log_softmax(experts)
  votes = jnp.where(counted[..., None], votes, -1e30)
  mixed = jax.nn.logsumexp(votes, 1)
  return jnp.where(anybody, mixed, -jnp.log(float(experts.shape[-1])))


class MixtureOfExperts(nn.Module):
  r"""logits = log \sum_m pi_m softmax(h_m W_m + b_m), pi = softmax(G [h_1; ...; h_M] + g).

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  The logits are log-probabilities. For classification. The gate is linear in all features and its
  softmax is over those present (ours); with nobody the classes are equal. M = 1 is a linear head. G
  = 0 at first: a plain mean of distributions, so that no expert starves at the start (ours). Jacobs
  et al., Neural Computation 1991, one expert a modality.
  """

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = vectors(features, mask)
    zeros = nn.initializers.zeros
    gate = nn.Dense(len(flat), kernel_init=zeros, name="gate")(concat_vectors(flat))
    experts = [nn.Dense(num_classes, name=f"expert_{m}")(h) for m, h in flat.items()]
    return mixture_logits(gate, jnp.stack(experts, 1), presence(flat, mask)), None
