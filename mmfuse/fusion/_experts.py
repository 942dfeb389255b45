"""Product of experts: every modality's distribution over the classes has a veto.

Hinton: Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 2002.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


class ProductOfExperts(nn.Module):
  r"""p(c | h) \propto \prod_m p_m(c | h_m): logits = \sum_m log softmax(z_m), z_m = h_m W_m + b_m.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], split)`
  with split {m: log softmax(z_m)}, 0 where m is absent: the product is over those present, and with
  nobody uniform. For classification: each expert is a distribution over the C classes. Its
  cross-entropy has the gradients of `Sum`, as the product is normalised again; what differs is the
  scale of the split and that an absent modality has no vote, not even its bias. Any M >= 1. Hinton,
  Neural Computation 2002, with the experts of Madaan et al., Jointly Modeling Inter- &
  Intra-Modality Dependencies for Multi-modal Learning (I2M2), NeurIPS 2024.
  """

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    split = {}
    for m, h in vectors(features, mask).items():
      expert = jax.nn.log_softmax(nn.Dense(num_classes, name=f"expert_{m}")(h))
      split[m] = jnp.where(mask[m][:, None], expert, 0.0)
    return sum(split.values()), split
