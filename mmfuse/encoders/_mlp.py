"""Flat inputs: a multi-layer perceptron, or nothing at all."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from mmfuse.encoders._dropout import Dropout
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._sequence import as_array


class MLP(nn.Module):
  """x [B, ...] -> [B, features]: flattens, then (dense, norm, ReLU, dropout) per width.

  Args:
    features: the last width, default 64; defaults are ours.
    hidden: the widths before it, default one layer of 64.
    norm: see `Norm`, default "layer".
    dropout: the rate, default 0, after every layer but the last.
    linear: the last layer is dense alone, without norm and ReLU; default False.
  """

  features: int = 64
  hidden: Sequence[int] = (64,)
  norm: str = "layer"
  dropout: float = 0.0
  linear: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    x = as_array(x)
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate((*self.hidden, self.features)):
      last = self.linear and i == len(self.hidden)
      if i:
        x = Dropout(self.dropout)(x, train=train)
      x = nn.Dense(width, use_bias=last or self.norm != "batch", name=f"dense{i}")(x)
      x = x if last else nn.relu(Norm(self.norm, name=f"norm{i}")(x, mask, train=train))
    return x


class Identity(nn.Module):
  """x [B, ...] -> [B, D]: the inputs themselves, flattened. It has no parameters.

  For features that come from elsewhere: the uni-modal heads are then linear models of the inputs.
  """

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask, train
    x = as_array(x)
    return x.reshape(x.shape[0], -1)
