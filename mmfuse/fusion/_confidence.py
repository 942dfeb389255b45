"""Confidence-weighted late fusion (QMF): a modality counts by its free energy.

Zhang, Wu, Zhang, Hu, Fu, Zhou, Peng: Provable Dynamic Fusion for Low-Quality Multimodal Data, ICML
2023.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


def confidences(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], scale: float = 0.1
) -> dict[str, jax.Array]:
  """w_m = scale log sum_c exp(z_mc), no gradient, 0 where absent: {m: [B, C]} -> {m: [B]}.

  The negative free energy at temperature 1, which is large where some class is.
  """
  energies = {m: jax.nn.logsumexp(z, -1) for m, z in sorted(logits.items())}
  return {m: jax.lax.stop_gradient(jnp.where(mask[m], scale * e, 0.0)) for m, e in energies.items()}


class Confidence(nn.Module):
  r"""logits = \sum_m w_m z_m, z_m = h_m W_m + b_m, w_m = scale log \sum_c exp(z_mc), no gradient.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], split)`
  with split {m: w_m z_m}, 0 where m is absent. scale: 0.1, the division by 10 of the authors' code;
  in the paper the weight is a linear function of the energy. A weight is negative where
  all of a modality's logits are well below 0, as there. For classification with C >= 2. The paper's
  second part, a loss that aligns the weights with each example's history, is not here. Any M >= 1.
  Raises ValueError for scale <= 0. Zhang et al., ICML 2023, reconstructed.
  """

  scale: float = 0.1

  def __post_init__(self):
    if not self.scale > 0:
      raise ValueError(f"scale must be above 0, got {self.scale}")
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    logits = {
      m: nn.Dense(num_classes, name=f"branch_{m}")(h) for m, h in vectors(features, mask).items()
    }
    weights = confidences(logits, mask, self.scale)
    split = {m: weights[m][:, None] * z for m, z in logits.items()}
    return sum(split.values()), split
