"""Bottleneck tokens (MBT): modalities exchange what a few shared tokens can carry.

Nagrani, Yang, Arnab, Jansen, Schmid, Sun: Attention Bottlenecks for Multimodal Fusion, NeurIPS
2021.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._dense import Dense
from mmfuse.fusion._attention import Block, check_counts, check_width
from mmfuse.fusion._features import presence, sequences, within


def mean_present(tokens: jax.Array, present: jax.Array, otherwise: jax.Array) -> jax.Array:
  """Mean over the present modalities of tokens [M, B, N, E], present [B, M].

  `otherwise` [B, N, E] where nobody is.
  """
  here = present.T[:, :, None, None]
  count = here.sum(0)
  mean = jnp.where(here, tokens, 0.0).sum(0) / jnp.maximum(count, 1).astype(tokens.dtype)
  return jnp.where(count > 0, mean, otherwise)


class Bottleneck(nn.Module):
  """[x_m'; b_m'] = Block_m([x_m; b]) for all m from the same b, then b = mean_m b_m'.

  `(features {m: [B, D_m] or [B, T_m, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits
  [B, C], None)`; [B, D] is a sequence of one step. Tokens x_m = P_m h_m + p_m [T_m, E] (learned
  positions); layers before `fusion_layer` see x_m alone; logits = W mean_t norm(x)_t + b over all
  tokens of all modalities present (the paper's "gap"). Every modality has its own blocks: pre-norm,
  GELU, 4 E hidden. An absent modality is left out of both means; with nobody b stays and the logits
  are the head's bias. M = 1 is a Transformer with extra tokens; T_m is fixed by the first batch.
  Nagrani et al., NeurIPS 2021.

  Args:
    width: E, default 64; this and the next three are ours, small.
    heads: of the attention, default 4.
    layers: default 3 (paper: 12). The first fused layer fills b and the next one reads it, so there
      are at least two.
    fusion_layer: the first layer that sees b, default 1 (paper: 8).
    tokens: of the bottleneck, default 4 as the paper, drawn N(0, 0.02^2).
    exchange: False keeps the modalities apart, as the paper's evaluation without bottlenecks;
      default True.

  Raises:
    ValueError: a width that is no multiple of heads, tokens < 1, layers < 2, or fusion_layer
      outside 0..layers-2.
  """

  reads_steps = True  # of encoders that keep them (pool="none"); other features are one step

  width: int = 64
  heads: int = 4
  layers: int = 3
  fusion_layer: int = 1
  tokens: int = 4
  exchange: bool = True

  def __post_init__(self):
    check_width(self.width, self.heads)
    check_counts(tokens=self.tokens)
    if self.layers < 2 or not 0 <= self.fusion_layer <= self.layers - 2:
      raise ValueError(
        "fusion_layer must lie in 0..layers-2 (the last layer reads what one before "
        f"it wrote), got fusion_layer {self.fusion_layer} and layers {self.layers}"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    normal, x, own = nn.initializers.normal(0.02), {}, {}
    for m, h in sequences(features, mask).items():
      place = self.param(f"positions_{m}", normal, (1, h.values.shape[1], self.width))
      x[m] = Dense(self.width, name=f"project_{m}")(h.values) + place
      own[m] = within(h)
    b = self.param("bottleneck", normal, (1, self.tokens, self.width))
    b = jnp.broadcast_to(b, (_rows(x), self.tokens, self.width))
    for i in range(self.layers):
      block = {m: Block(self.heads, name=f"block{i}_{m}") for m in x}
      if i < self.fusion_layer or not self.exchange:
        x = {m: block[m](h, own[m][:, None]) for m, h in x.items()}
      else:
        x, b = self._exchange(block, x, b, own, mask)
    norm = nn.LayerNorm(name="norm")
    total = sum(jnp.where(own[m][..., None], norm(h), 0.0).sum(1) for m, h in x.items())
    count = sum(valid.sum(1, keepdims=True) for valid in own.values())
    return nn.Dense(num_classes, name="out")(total / jnp.maximum(count, 1)), None

  def _exchange(self, block, x, b, own, mask):
    after, shared = {}, []
    for m, h in x.items():
      both = jnp.concatenate([h, b], 1)
      valid = jnp.pad(own[m], ((0, 0), (0, self.tokens)), constant_values=True)
      both = block[m](both, valid[:, None])
      after[m] = both[:, : h.shape[1]]
      shared.append(both[:, h.shape[1] :])
    return after, mean_present(jnp.stack(shared), presence(after, mask), b)


def _rows(x):
  return next(iter(x.values())).shape[0]
