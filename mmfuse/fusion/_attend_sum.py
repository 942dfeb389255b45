"""Attention over modalities: a weighted sum of projected features.

The attention fusion of TorchMultimodal (facebookresearch/multimodal): a soft gate.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._attention import masked_softmax
from mmfuse.fusion._early import concat_vectors
from mmfuse.fusion._features import presence, vectors


def weighted_sum(scores: jax.Array, projected: jax.Array, present: jax.Array) -> jax.Array:
  r"""\sum_m a_m y_m, a = softmax(scores) over those present, 0 with nobody.

  scores [B, M]; projected y [B, M, D]; present bool [B, M]. Returns [B, D].
  """
  weights = masked_softmax(scores, present).astype(projected.dtype)
  return jnp.einsum("bm,bmd->bd", weights, projected)


class Attention(nn.Module):
  r"""logits = W \sum_m a_m P_m h_m + b, a = softmax(A [h_1; ...; h_M] + c), a scalar a modality.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  P_m maps to the smallest width, with a bias, as TorchMultimodal does. The softmax is over those
  present (ours); with nobody the logits are b. M = 1 is two linear maps. From TorchMultimodal
  (facebookresearch/multimodal), AttentionFusionModule; the head is ours.
  """

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = vectors(features, mask)
    width = min(h.shape[-1] for h in flat.values())
    scores = nn.Dense(len(flat), name="attention")(concat_vectors(flat))
    projected = [nn.Dense(width, name=f"project_{m}")(h) for m, h in flat.items()]
    fused = weighted_sum(scores, jnp.stack(projected, 1), presence(flat, mask))
    return nn.Dense(num_classes, name="out")(fused), None
