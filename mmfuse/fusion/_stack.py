"""Stack: features side by side on a new last axis."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


def stack_vectors(features: Mapping[str, jax.Array]) -> jax.Array:
  """S[b, d, m] = h_m[b, d], the modalities in order sorted(m): [B, D, M].

  Each [B, ...] is flattened row by row. Raises ValueError where the widths differ.
  """
  flat = [features[m].reshape(features[m].shape[0], -1) for m in sorted(features)]
  widths = [x.shape[-1] for x in flat]
  if len(set(widths)) > 1:
    raise ValueError(f"features are stacked where all have one width, got {widths}")
  return jnp.stack(flat, -1)


class Stack(nn.Module):
  r"""logits = W vec(S) + b, S[d, m] = (P_m h_m)_d; W [D M, C], b [C].

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  P_m: none where all modalities have one width, as in the source; otherwise a linear map without
  bias to the smallest width D (ours). With a linear head and no P_m this is `Concat` with its rows
  in another order, without the split. Absent rows count as zeros; any M >= 1. Liang et al.,
  MultiBench: Multiscale Benchmarks for Multimodal Representation Learning, NeurIPS 2021.
  """

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = vectors(features, mask)
    widths = {h.shape[-1] for h in flat.values()}
    if len(widths) > 1:
      flat = {
        m: nn.Dense(min(widths), use_bias=False, name=f"project_{m}")(h) for m, h in flat.items()
      }
    stacked = stack_vectors(flat)
    return nn.Dense(num_classes, name="out")(stacked.reshape(stacked.shape[0], -1)), None
