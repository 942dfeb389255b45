"""Concatenation with one linear head: the additive fusion of the balancing literature."""

from collections.abc import Mapping

import flax.linen as nn
import jax

from mmfuse.fusion._kernel import dealt, total_width


def _products(features: Mapping[str, jax.Array], kernel: jax.Array) -> dict[str, jax.Array]:
  """{m: h_m W_m}."""
  return {m: features[m] @ w for m, w in dealt(kernel, features).items()}


def split_concat(
  features: Mapping[str, jax.Array], kernel: jax.Array, bias: jax.Array
) -> dict[str, jax.Array]:
  r"""z_m = h_m W_m + b / M, so that \sum_m z_m is the fused head's output: {m: [B, C]}.

  Args:
    features: {m: h_m [B, D_m]}.
    kernel: W [sum_m D_m, C], its rows in order sorted(m).
    bias: b [C].

  Raises:
    ValueError: a kernel of another number of rows.
  """
  share = (bias / len(features)).reshape(1, -1)
  return {m: z + share for m, z in _products(features, kernel).items()}


class Concat(nn.Module):
  r"""logits = \sum_m h_m W_m + b = [h_1; ...; h_M] W + b, W [sum_m D_m, C], b [C].

  `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], split)`
  with split {m: [B, C]} as in `split_concat`. Absent rows come in as zeros: b / M is their share.
  The split is that of Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation,
  CVPR 2022.
  """

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del mask, train
    shape = (total_width(features), num_classes)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (num_classes,))
    products = _products(features, kernel)
    # The products are shared by both outputs, so that a rule which wants the split pays nothing.
    share = (bias / len(products)).reshape(1, -1)
    return sum(products.values()) + bias.reshape(1, -1), {m: z + share for m, z in products.items()}
