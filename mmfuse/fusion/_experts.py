"""Product of experts: every modality's distribution over the classes has a veto.

Hinton: Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 2002.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


def combine_experts(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array] | None = None
) -> jax.Array:
  r"""log p(c) = log softmax(\sum_e log softmax(z_e)) [B, C] over the experts that a row has.

  logits {e: z_e [B, C]} of any number of experts, uni-modal or joint; mask {e: bool [B]}, default
  all present. A row without any is uniform. The gradient of -mean log p(y) is the same for all of
  them: (softmax(sum of z) - onehot(y)) / B. Raises ValueError for no expert. Madaan et al., I2M2,
  NeurIPS 2024.
  """
  _check(logits)
  votes = [_masked(jax.nn.log_softmax(z), mask, e, 0.0) for e, z in sorted(logits.items())]
  return jax.nn.log_softmax(sum(votes))


def mix_experts(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array] | None = None
) -> jax.Array:
  r"""log p(c) = log of the mean of softmax(z_e) [B, C] over the experts that a row has.

  Shapes and errors as in `combine_experts`; a row without any expert is 0 everywhere. What the I2M2
  code tests its "intra" baseline with, though it is trained as a product.
  """
  _check(logits)
  chances = [_masked(jax.nn.log_softmax(z), mask, e, -jnp.inf) for e, z in sorted(logits.items())]
  # Counted by the mask: an expert that diverged is present, and its NaN must show.
  present = len(chances) if mask is None else jnp.stack([mask[e] for e in logits]).sum(0)[:, None]
  mean = jax.nn.logsumexp(jnp.stack(chances), axis=0) - jnp.log(jnp.maximum(present, 1))
  return jnp.where(present > 0, mean, 0.0)


def _check(logits):
  if not logits:
    raise ValueError("a combination of experts needs at least one, got none")


def _masked(log_chances, mask, name, absent):
  """[B, C], with rows that lack the expert replaced."""
  return log_chances if mask is None else jnp.where(mask[name][:, None], log_chances, absent)


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
