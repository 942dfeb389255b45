"""Low-rank multimodal fusion (LMF): tensor fusion whose linear head is a sum of R products.

Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency: Efficient Low-rank Multimodal Fusion with
Modality-Specific Factors, ACL 2018.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._early import check_widths, mlp
from mmfuse.fusion._features import vectors
from mmfuse.fusion._tensor import with_one


def low_rank_product(
  features: Mapping[str, jax.Array],
  factors: Mapping[str, jax.Array],
  weights: jax.Array,
  bias: jax.Array,
) -> jax.Array:
  r"""y = \sum_r w_r \prod_m ([1; h_m] F_m[r]) + b.

  features {m: [B, D_m]}; factors F {m: [R, 1 + D_m, C]}, the row of the 1 first; weights w [R];
  bias b [C]. Returns [B, C]. Raises ValueError where a factor has another number of rows.
  """
  products = []
  for m in sorted(features):
    h, factor = with_one(features[m]), factors[m]
    if factor.shape[1] != h.shape[-1]:
      raise ValueError(
        f"the factor of {m!r} must have {h.shape[-1]} rows (1 + its features), "
        f"got {factor.shape[1]}"
      )
    products.append(jnp.einsum("bd,rdc->rbc", h, factor))
  product = math.prod(products[1:], start=products[0])
  return jnp.einsum("r,rbc->bc", weights, product) + bias.reshape(1, -1)


class LowRank(nn.Module):
  r"""logits = \sum_r w_r \prod_m ([1; h_m] F_m[r]) + b; F_m [R, 1 + D_m, C], w [R], b [C].

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  Factors and weights are drawn with the Xavier normal scale, b = 0. An absent modality multiplies
  by its bias row F_m[:, 0] alone. Any M >= 1. Liu et al., ACL 2018.

  Args:
    rank: R, default 40 (MultiBench on AV-MNIST).
    frozen: True keeps the factors as drawn, which is what MultiBench does, whose factors never
      reach the optimiser (they are `batch_stats` then, so that weight decay does not reach them
      either); default False, the paper trains them.
    width: None, or that of the sum, on which an MLP gives the logits: 120 is the LRTF of MultiBench
      and I2M2 on AV-MNIST.
    hidden: widths of that MLP's hidden layers, default (100,).

  Raises:
    ValueError: a rank or a width below 1.
  """

  rank: int = 40
  frozen: bool = False
  width: int | None = None
  hidden: tuple[int, ...] = (100,)

  def __post_init__(self):
    if self.rank < 1:
      raise ValueError(f"rank must be at least 1, got {self.rank}")
    if self.width is not None and self.width < 1:
      raise ValueError(f"width must be at least 1 or None, got {self.width}")
    check_widths(self.hidden)
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = vectors(features, mask)
    factors, out = {}, num_classes if self.width is None else self.width
    for m, h in flat.items():
      rows = 1 + h.shape[-1]
      # Fans as the source counts them: the first axis is the output, the second the input.
      std = (2 / ((rows + self.rank) * out)) ** 0.5
      shape = (self.rank, rows, out)
      factors[m] = self._factor(f"factor_{m}", nn.initializers.normal(std), shape)
    std = (2 / (1 + self.rank)) ** 0.5
    weights = self.param("weights", nn.initializers.normal(std), (self.rank,))
    bias = self.param("bias", nn.initializers.zeros, (out,))
    y = low_rank_product(flat, factors, weights, bias)
    return (y if self.width is None else mlp(y, self.hidden, num_classes)), None

  def _factor(self, name, draw, shape):
    """A parameter, or where no optimiser sees it: weight decay would shrink a frozen one."""
    if not self.frozen:
      return self.param(name, draw, shape)
    return self.variable("batch_stats", name, lambda: draw(self.make_rng("params"), shape)).value
