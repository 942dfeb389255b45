"""Integer tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.encoders._mlp import MLP
from mmfuse.encoders._sequence import mean_over


def vocabulary_size(tokens) -> int:
  """max + 1 of the integer array `tokens` of any shape; at least 1. Raises TypeError for floats."""
  tokens = np.asarray(tokens)
  if not np.issubdtype(tokens.dtype, np.integer):
    raise TypeError(f"tokens are integers, got dtype {tokens.dtype}")
  return max(1, int(tokens.max(initial=0)) + 1)


class Embedding(nn.Module):
  """int tokens [B, L] or [B] -> [B, features]: the mean of their embeddings, then `MLP`.

  vocabulary: how many tokens there are (`vocabulary_size(tokens)`); tokens from there on share one
  extra row, "unknown"; negative ones are padding and left out of the mean. width of an embedding:
  64; features: 64; hidden, norm, dropout: those of `MLP`. Raises TypeError for tokens that are not
  integers.
  """

  vocabulary: int
  features: int = 64
  width: int = 64
  hidden: tuple[int, ...] = ()
  norm: str = "layer"
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise TypeError(f"an embedding takes integer tokens, got dtype {x.dtype}")
    x = x.reshape(x.shape[0], -1)
    table = self.param("table", nn.initializers.normal(1.0), (self.vocabulary + 1, self.width))
    h = jnp.take(table, jnp.clip(x, 0, self.vocabulary), axis=0, mode="clip")
    h = mean_over(h, x >= 0)
    mlp = MLP(self.features, self.hidden, self.norm, self.dropout, name="mlp")
    return mlp(h, mask, train=train)
