"""DMRNet's Gaussian of maps: between the coarsest scale and a decoder, and a second decoder for hard rows."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from mmfuse import draws
from mmfuse.fusion import Gaussian, draw_gaussian
from mmfuse.methods.missing._branch import BRANCH


class GaussianDecoder(nn.Module):
  r"""logits = decoder(x_0, ..., z), z ~ N(mu, exp(logvar)) of x_L in training, z = mu else.

  `(maps (x_0 [B, H, W, D_0], ..., x_L), mask bool [B], *, train) -> (logits, {"mu", "logvar": [B, h, w,
  width]})`, mu and logvar as in `fusion.Gaussian`, of every place. Training draws from the stream
  "dropout", and aux["branch"] are then the logits of a second decoder on the same maps and the same z.

  Args:
    decoder: what the model has, `(maps, mask, *, train) -> (logits, aux)`.
    width: of z, default None, that of x_L.
  """

  decoder: Any
  width: int | None = None

  @nn.compact
  def __call__(self, maps: Sequence[jax.Array], mask: jax.Array, *, train: bool):
    *fine, coarse = maps
    width = self.width or coarse.shape[-1]
    mean, logvar = Gaussian(width, name="gaussian")(coarse, mask, train=train)
    z = mean
    if train:
      z = draw_gaussian(
        mean, logvar, draws.flat(jax.random.normal, self.make_rng("dropout"), mean.shape)
      )
    said, _ = self.decoder.copy(name="main")((*fine, z), mask, train=train)
    beside = {"mu": mean, "logvar": logvar}
    if train or self.is_initializing():
      beside[BRANCH] = self.decoder.copy(name="second")((*fine, z), mask, train=train)[0]
    return said, beside
