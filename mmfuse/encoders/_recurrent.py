"""Recurrent encoders of sequences."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._sequence import mean_over, unpack, valid_steps

POOLS = ("last", "mean", "flatten")


class _Recurrent(nn.Module):
  features: int = 64
  pool: str = "last"
  projection: int | None = None

  cell: ClassVar[Callable[..., nn.RNNCellBase]]

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask, train  # rows never meet: an absent one cannot reach the others
    if self.pool not in POOLS:
      raise ValueError(f"pool is one of {', '.join(POOLS)}, got {self.pool!r}")
    values, lengths = unpack(x)
    rnn = nn.RNN(self.cell(features=self.features, name="cell"), return_carry=True, name="rnn")
    carry, outputs = rnn(values, seq_lengths=lengths)
    # An LSTM carries (cell, hidden), a GRU its hidden state.
    states = jax.tree.leaves(carry)[-1] if self.pool == "last" else outputs
    if self.projection is not None:
      states = nn.Dense(self.projection, name="projection")(states)
    if self.pool == "last":
      return states
    valid = valid_steps(values, lengths)
    if self.pool == "mean":
      return mean_over(states, valid)
    return jnp.where(valid[..., None], states, 0).reshape(len(states), -1)


class GRU(_Recurrent):
  """x [B, T, C] -> [B, features]: the hidden state of a gated recurrent unit.

  x may be {"values": [B, T, C], "length": int [B]}. features defaults to 64. pool: "last" (default),
  the state after the last valid step; "mean" over the valid steps; or "flatten": all of them side by
  side, [B, T * features], zero beyond the length. projection: width of a linear layer on every state
  before that, none by default (I2M2 on MIMIC: features 30, projection 15, flatten). Cho et al.,
  Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014.
  """

  cell = nn.GRUCell


class LSTM(_Recurrent):
  """x [B, T, C] -> [B, features]: the hidden state of a long short-term memory; else as `GRU`.

  Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 1997. The forget gate has
  no extra bias.
  """

  cell = nn.OptimizedLSTMCell
