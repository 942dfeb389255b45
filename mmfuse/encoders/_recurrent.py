"""Recurrent encoders of sequences."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._sequence import length_of, mean_over, steps_of_vectors, zero_after

POOLS = ("last", "mean", "all")


class _Recurrent(nn.Module):
  features: int = 64
  pool: str = "last"
  project: int = 0

  reads_lengths = True
  cell: ClassVar[Callable[..., nn.RNNCellBase]]

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask, train  # rows never meet: an absent one cannot reach the others
    if self.pool not in POOLS:
      raise ValueError(f"pool is one of {', '.join(POOLS)}, got {self.pool!r}")
    (values, valid), length = steps_of_vectors(x), length_of(x)
    # The state of a row of length 0, an absent one, is that of one step of zeros.
    ends = None if length is None else jnp.maximum(length, 1)
    rnn = nn.RNN(self.cell(features=self.features, name="cell"), return_carry=True, name="rnn")
    carry, outputs = rnn(values, seq_lengths=ends)
    if self.project:
      if self.pool != "all":
        raise ValueError(f'project is for pool="all", got pool={self.pool!r}')
      outputs = nn.Dense(self.project, name="project")(outputs)
    if self.pool == "all":
      return zero_after(outputs, length).reshape(outputs.shape[0], -1)
    if self.pool == "mean":
      return mean_over(outputs, valid)
    return jax.tree.leaves(carry)[-1]  # an LSTM carries (cell, hidden), a GRU its hidden state


class GRU(_Recurrent):
  """x [B, T, C] -> [B, features]: the hidden state of a gated recurrent unit.

  x may be a `core.Sequence`. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder,
  EMNLP 2014.

  Args:
    features: default 64 (ours).
    pool: "last" (default), the state after the last valid step; "mean" over the valid steps; "all":
      every step flattened, [B, T * features], invalid ones zero.
    project: with "all", the width of a linear layer on each step, default 0, none; features 30 and
      project 15 are the series encoder of MIMIC in MultiBench and I2M2.
  """

  cell = nn.GRUCell


class LSTM(_Recurrent):
  """x [B, T, C] -> [B, features]: the hidden state of a long short-term memory.

  Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 1997. The forget gate has
  no extra bias.

  Args:
    features, pool, project: as in `GRU`.
  """

  cell = nn.OptimizedLSTMCell
