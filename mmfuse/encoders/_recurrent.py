"""Recurrent encoders of sequences."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax

from mmfuse.encoders._sequence import mean_over, unpack, valid_steps

POOLS = ("last", "mean")


class _Recurrent(nn.Module):
  features: int = 64
  pool: str = "last"

  cell: ClassVar[Callable[..., nn.RNNCellBase]]

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask, train  # rows never meet: an absent one cannot reach the others
    if self.pool not in POOLS:
      raise ValueError(f"pool is one of {', '.join(POOLS)}, got {self.pool!r}")
    values, lengths = unpack(x)
    rnn = nn.RNN(self.cell(features=self.features, name="cell"), return_carry=True, name="rnn")
    carry, outputs = rnn(values, seq_lengths=lengths)
    if self.pool == "mean":
      return mean_over(outputs, valid_steps(values, lengths))
    return jax.tree.leaves(carry)[-1]  # an LSTM carries (cell, hidden), a GRU its hidden state


class GRU(_Recurrent):
  """x [B, T, C] -> [B, features]: the hidden state of a gated recurrent unit.

  x may be {"values": [B, T, C], "length": int [B]}. pool: "last" (default), the state after the
  last valid step, or "mean" over the valid steps. features defaults to 64. Cho et al., Learning
  Phrase Representations using RNN Encoder-Decoder, EMNLP 2014.
  """

  cell = nn.GRUCell


class LSTM(_Recurrent):
  """x [B, T, C] -> [B, features]: the hidden state of a long short-term memory; else as `GRU`.

  Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 1997. The forget gate has
  no extra bias.
  """

  cell = nn.OptimizedLSTMCell
