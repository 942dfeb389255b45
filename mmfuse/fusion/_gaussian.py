"""Gaussian product of experts: modalities vote on a latent vector with their precisions.

Wu, Goodman: Multimodal Generative Models for Scalable Weakly-Supervised Learning (MVAE), NeurIPS
2018.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


def gaussian_product(
  means: Mapping[str, jax.Array],
  log_vars: Mapping[str, jax.Array],
  mask: Mapping[str, jax.Array],
  eps: float = 1e-8,
) -> tuple[jax.Array, jax.Array]:
  r"""mu = \sum_i mu_i T_i / \sum_i T_i, var = 1 / \sum_i T_i, T_i = 1 / (exp(log_var_i) + eps).

  The sum is over the modalities present and a prior N(0, 1), whose T = 1 / (1 + eps).

  Args:
    means: {m: mu_m [B, D]}.
    log_vars: {m: [B, D]}.
    mask: {m: bool [B]}.
    eps: default 1e-8 (the MVAE code).

  Returns (mean, log_var), each [B, D]; nobody gives the prior.
  """
  like = next(iter(means.values()))
  total, weighted = jnp.full_like(like, 1 / (1 + eps)), jnp.zeros_like(like)
  for m in sorted(means):
    precision = jnp.where(mask[m][:, None], 1 / (jnp.exp(log_vars[m]) + eps), 0.0)
    total = total + precision
    weighted = weighted + precision * means[m]
  return weighted / total, -jnp.log(total)


class GaussianProduct(nn.Module):
  r"""logits = W mu + b, N(mu, var) \propto N(0, 1) \prod_m N(mu_m, var_m).

  mu_m and log var_m are linear in h_m.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  The mean of the product is used, in training too: a head that weighs modalities by how sure they
  are, unit by unit, not a generative model. width: of the latent, default 64 (ours). log var is
  kept in +-10, as exp of more overflows the precisions' ratio. Absent modalities have no vote; with
  nobody mu = 0. Any M >= 1. Raises ValueError for a width below 1. Wu, Goodman, NeurIPS 2018; the
  head is ours.
  """

  width: int = 64

  def __post_init__(self):
    if self.width < 1:
      raise ValueError(f"width must be at least 1, got {self.width}")
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    means, log_vars = {}, {}
    for m, h in vectors(features, mask).items():
      means[m] = nn.Dense(self.width, name=f"mean_{m}")(h)
      log_vars[m] = jnp.clip(nn.Dense(self.width, name=f"log_var_{m}")(h), -10.0, 10.0)
    mean, _ = gaussian_product(means, log_vars, mask)
    return nn.Dense(num_classes, name="out")(mean), None
