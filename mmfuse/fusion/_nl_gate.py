"""Non-local gate: one modality's tokens look up the others'.

The non-local operation: Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018; between
modalities as in MultiBench.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._attention import check_counts, masked_softmax
from mmfuse.fusion._features import vectors
from mmfuse.fusion._gated import _Led, leader


def nl_gate(query: jax.Array, keys: jax.Array, values: jax.Array, allowed: jax.Array) -> jax.Array:
  """Q + softmax(Q K) V over allowed tokens; no 1 / sqrt(d).

  query Q [B, N, d]; keys K [B, d, T]; values V [B, T, d]; allowed bool [B, T]. Returns [B, N, d].
  """
  weights = masked_softmax(query @ keys, allowed[:, None, :])
  return query + weights.astype(values.dtype) @ values


class NLGate(_Led):
  """logits = vec(Q + softmax(Q K) V) W + b; Q from x, K and V from the others.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`. Q
  [N, d] is a linear map of h_x, dealt into N tokens; every other modality y gives T tokens by two
  linear maps of h_y, K_y dealt as [d, T] and V_y as [T, d], as the source reshapes them. Beyond two
  modalities the tokens of all others stand side by side (ours). Absent ones are not looked at;
  nobody to look at gives Q alone, an absent x the bias of its map; M = 1 is Q. Wang et al., CVPR
  2018; Liang et al., MultiBench, NeurIPS 2021.

  Args:
    by: the modality x; default None, the first in sorted order.
    query_tokens: N, default 4; sizes are ours, the source fixes none.
    tokens: T, default 4.
    channels: d, default 16.

  Raises:
    ValueError: a size below 1.
  """

  query_tokens: int = 4
  tokens: int = 4
  channels: int = 16

  def __post_init__(self):
    check_counts(query_tokens=self.query_tokens, tokens=self.tokens, channels=self.channels)
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = vectors(features, mask)
    x, others = leader(flat, self.by)
    rows, d = flat[x].shape[0], self.channels
    y = nn.Dense(self.query_tokens * d, name="query")(flat[x]).reshape(rows, -1, d)
    if others:
      size = self.tokens * d
      keys = [nn.Dense(size, name=f"key_{m}")(flat[m]).reshape(rows, d, -1) for m in others]
      values = [nn.Dense(size, name=f"value_{m}")(flat[m]).reshape(rows, -1, d) for m in others]
      allowed = jnp.concatenate([jnp.repeat(mask[m][:, None], self.tokens, 1) for m in others], 1)
      y = nl_gate(y, jnp.concatenate(keys, 2), jnp.concatenate(values, 1), allowed)
    return nn.Dense(num_classes, name="out")(y.reshape(rows, -1)), None
