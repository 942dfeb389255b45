"""Cosine fusion (MMCosine): every modality's logits have the same scale.

Xu, Feng, Zhang and Hu, MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual
Fine-Grained Learning, ICASSP 2023.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._kernel import dealt, total_width


def unit(x: jax.Array, axis: int) -> jax.Array:
  """x / |x| along an axis; 0 without gradient where x is 0 (an absent row, a dead unit)."""
  square = jnp.sum(jnp.square(x), axis, keepdims=True)
  alive = square > 0
  return jnp.where(alive, x * jax.lax.rsqrt(jnp.where(alive, square, 1.0)), 0.0)


def cosine_logits(
  features: Mapping[str, jax.Array], kernel: jax.Array, scale: float = 15.0
) -> dict[str, jax.Array]:
  """z_m = scale h_m . W_m / (|h_m| |W_m|), column by column of W_m: {m: [B, C]} in +- scale.

  Args:
    features: {m: h_m [B, D_m]}.
    kernel: W [sum_m D_m, C], its rows dealt out in order sorted(m).
    scale: default 15 (BalanceBenchmark).

  Raises:
    ValueError: a kernel of another number of rows.
  """
  return {
    m: scale * (unit(features[m], -1) @ unit(w, 0)) for m, w in dealt(kernel, features).items()
  }


class Cosine(nn.Module):
  r"""logits = \sum_m z_m, z_m = scale cos(h_m, W_m); W [sum_m D_m, C], no bias.

  `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], split)`
  with split {m: z_m [B, C]}. Absent rows come in as zeros and have z_m = 0. `scale` defaults to 15
  (BalanceBenchmark). The same in training and at test. Xu et al., MMCosine, ICASSP 2023.
  """

  scale: float = 15.0

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del mask, train
    shape = (total_width(features), num_classes)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    split = cosine_logits(features, kernel, self.scale)
    return sum(split.values()), split
