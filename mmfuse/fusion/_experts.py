"""Product of experts: every modality's distribution over the classes has a veto.

Hinton: Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 2002.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


def votes(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
  """{e: log softmax(z_e)} [B, C] of experts {e: [B, C]}; 0, no vote, where `mask` [B] is False."""
  return {
    e: jnp.where(mask[e][:, None], jax.nn.log_softmax(logits[e]), 0.0) for e in sorted(logits)
  }


def product_logits(logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array]) -> jax.Array:
  r"""log p(c) = log softmax(\sum_e log softmax(z_e)) [B, C], the product over the present experts.

  logits {e: [B, C]}, uni-modal and joint experts alike; mask {e: bool [B]}, True = present: a missing
  modality takes its own expert and the joint one away, and what remains is a distribution again;
  uniform where nobody is present. Equal to log softmax(\sum_e z_e), so that the cross-entropy has the
  same gradient, p - onehot(y), with respect to every present expert. Madaan et al., I2M2, NeurIPS 2024.
  """
  return jax.nn.log_softmax(sum(votes(logits, mask).values()))


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
    flat = vectors(features, mask)
    split = votes({m: nn.Dense(num_classes, name=f"expert_{m}")(h) for m, h in flat.items()}, mask)
    return sum(split.values()), split
