"""A Gaussian in place of a fused vector: sampled in training, its mean at test.

Wei, Luo, Wang, Luo: Robust Multimodal Learning via Representation Decoupling (DMRNet), ECCV 2024.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import draws
from mmfuse.encoders import Norm
from mmfuse.fusion._early import concat_vectors
from mmfuse.fusion._features import presence, vectors


def draw_gaussian(mean: jax.Array, logvar: jax.Array, noise: jax.Array) -> jax.Array:
  """z = mean + noise * exp(logvar / 2): N(mean, exp(logvar)), by a noise that is given.

  Args:
    mean, logvar: of one shape.
    noise: of that shape, from N(0, 1).
  """
  return mean + noise * jnp.exp(logvar / 2)


class Gaussian(nn.Module):
  """mu = BN(W_1 h + b_1), logvar = BN(W_2 h + b_2) of h [B, ..., D]: both [B, ..., width].

  `(h, rows bool [B], *, train)`; batch norm is over the rows named there and all positions, so that on
  maps [B, H, W, D] it is a 1 x 1 convolution and its norm. A row not named there has logvar 0.
  width: of mean and logvar.
  """

  width: int

  @nn.compact
  def __call__(self, h: jax.Array, rows: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
    def normed(name):
      linear = nn.Dense(self.width, name=name)(h)
      return Norm("batch", name=f"{name}_norm")(linear, rows, train=train)

    mean, logvar = normed("mean"), normed("logvar")
    # What the moments do not know may be any number of deviations away, and its exponential inf.
    known = rows.reshape((-1,) + (1,) * (h.ndim - 1))
    return mean, jnp.where(known, logvar, jnp.zeros((), logvar.dtype))


class GaussianHead(nn.Module):
  r"""logits = W z + b, z ~ N(mu, exp(logvar)) in training and z = mu else, of h = [h_1; ...; h_M].

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], {"mu":
  [B, width], "logvar": [B, width]})`, mu and logvar as in `Gaussian`. Training draws from the stream
  "dropout". Absent modalities come in as zeros; a row without any is in no batch statistics and has
  logvar 0. Any M >= 1. width: default None, that of h (the authors'). Raises ValueError for a width
  below 1.
  """

  width: int | None = None

  def __post_init__(self):
    if self.width is not None and self.width < 1:
      raise ValueError(f"width must be at least 1, got {self.width}")
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    h = concat_vectors(vectors(features, mask))
    rows = presence(features, mask).any(-1)
    width = self.width or h.shape[-1]
    mean, logvar = Gaussian(width, name="gaussian")(h, rows, train=train)
    z = mean
    if train:  # rows first: the draws of a row do not depend on how many there are
      noise = draws.flat(jax.random.normal, self.make_rng("dropout"), mean.shape, dtype=mean.dtype)
      z = draw_gaussian(mean, logvar, noise)
    return nn.Dense(num_classes, name="out")(z), {"mu": mean, "logvar": logvar}
