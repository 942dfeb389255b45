"""Tensor fusion (TFN): all products of features of different modalities.

Zadeh, Chen, Poria, Cambria, Morency: Tensor Fusion Network for Multimodal Sentiment Analysis,
EMNLP 2017.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


def with_one(h: jax.Array) -> jax.Array:
  """[1; h]: [B, D] -> [B, 1 + D]."""
  return jnp.concatenate([jnp.ones((h.shape[0], 1), h.dtype), h], -1)


def tensor_product(features: Mapping[str, jax.Array]) -> jax.Array:
  r"""vec([1; h_1] \otimes ... \otimes [1; h_M]): {m: [B, D_m]} -> [B, \prod_m (1 + D_m)].

  Row by row, the last modality of sorted(m) fastest; one modality alone is returned unchanged, as
  MultiBench does.
  """
  first, *others = (features[m] for m in sorted(features))
  if not others:
    return first
  product = with_one(first)
  for h in others:
    product = (product[:, :, None] * with_one(h)[:, None, :]).reshape(h.shape[0], -1)
  return product


def narrowed(features: Mapping[str, jax.Array], products: int) -> dict[str, jax.Array]:
  r"""Features of which there are at most `products` products, \prod_m (1 + D_m).

  Where there are more, every h_m wider than w is projected to w by a linear map without bias (zeros
  stay zeros), with (1 + w)^M the largest that fits, w >= 1. To be called in a module's compact
  method.
  """
  if len(features) == 1:
    return dict(features)
  total = 1
  for h in features.values():
    total *= 1 + h.shape[-1]
  if total <= products:
    return dict(features)
  # 1e-9: an exact root must not be rounded down.
  width = max(1, int(products ** (1 / len(features)) + 1e-9) - 1)
  return {
    m: h if h.shape[-1] <= width else nn.Dense(width, use_bias=False, name=f"narrow_{m}")(h)
    for m, h in features.items()
  }


class Tensor(nn.Module):
  r"""logits = W vec([1; h_1] \otimes ... \otimes [1; h_M]) + b; W [\prod_m (1 + D_m), C], b [C].

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  products: the most products that are formed, default 4096 (ours: D = 63 for two modalities, 15 for
  three); where the features give more, the wide ones are first projected (`narrowed`), as the
  paper's subnetworks end in few units. An absent modality is a zero vector: products without it
  survive. Any M >= 1, one alone meets a linear head. Raises ValueError for products < 1.

  Zadeh et al., EMNLP 2017; the head there is a small MLP.
  """

  products: int = 4096

  def __post_init__(self):
    if self.products < 1:
      raise ValueError(f"products must be at least 1, got {self.products}")
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = narrowed(vectors(features, mask), self.products)
    return nn.Dense(num_classes, name="out")(tensor_product(flat)), None
