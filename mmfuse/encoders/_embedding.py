"""Integer tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.core import Sequence
from mmfuse.encoders._mlp import MLP
from mmfuse.encoders._sequence import mean_over, steps


def vocabulary_size(tokens) -> int:
  """max + 1 of the integer array `tokens` of any shape; at least 1. Raises TypeError for floats."""
  tokens = np.asarray(tokens)
  if not np.issubdtype(tokens.dtype, np.integer):
    raise TypeError(f"tokens are integers, got dtype {tokens.dtype}")
  return max(1, int(tokens.max(initial=0)) + 1)


class Embedding(nn.Module):
  """int tokens [B, L] or [B] -> [B, features]: the mean of their embeddings, then `MLP`.

  Negative tokens are padding and left out of the mean, as are those beyond the length of a
  `core.Sequence`.

  Args:
    vocabulary: how many tokens there are (`vocabulary_size(tokens)`); tokens from there on share
      one extra row, "unknown".
    features: default 64; defaults are ours.
    width: of an embedding, default 64.
    hidden, norm, dropout: those of `MLP`, default (), "layer", 0.

  Raises:
    TypeError: tokens that are not integers.
  """

  reads_lengths = True

  vocabulary: int
  features: int = 64
  width: int = 64
  hidden: tuple[int, ...] = ()
  norm: str = "layer"
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    x, valid = _tokens(x)
    table = self.param("table", nn.initializers.normal(1.0), (self.vocabulary + 1, self.width))
    h = jnp.take(table, jnp.clip(x, 0, self.vocabulary), axis=0, mode="clip")
    h = mean_over(h, valid & (x >= 0))
    mlp = MLP(self.features, self.hidden, self.norm, self.dropout, name="mlp")
    return mlp(h, mask, train=train)


def _tokens(x):
  """(tokens [B, L], valid bool [B, L])."""
  tokens = x.values if isinstance(x, Sequence) else x
  if not jnp.issubdtype(tokens.dtype, jnp.integer):
    raise TypeError(f"an embedding takes integer tokens, got dtype {tokens.dtype}")
  return steps(x) if isinstance(x, Sequence) else steps(x.reshape(x.shape[0], -1))
