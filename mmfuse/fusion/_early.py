"""Early fusion: one network on the concatenated features."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors


def concat_vectors(features: Mapping[str, jax.Array]) -> jax.Array:
  """[h_1; ...; h_M], each [B, ...] flattened row by row, in order sorted(m): [B, sum_m D_m]."""
  flat = [features[m].reshape(features[m].shape[0], -1) for m in sorted(features)]
  return jnp.concatenate(flat, -1)


def mlp(x: jax.Array, hidden: Sequence[int], num_classes: int) -> jax.Array:
  """W_L relu(... relu(W_1 x + b_1)) + b_L, layers "dense0", ..., "out" of the module that calls it."""
  for i, width in enumerate(hidden):
    x = nn.relu(nn.Dense(width, name=f"dense{i}")(x))
  return nn.Dense(num_classes, name="out")(x)


def check_widths(hidden: Sequence[int]) -> None:
  """Refuses a hidden layer without a unit."""
  if any(width < 1 for width in hidden):
    raise ValueError(f"hidden widths must be at least 1, got {tuple(hidden)}")


class Early(nn.Module):
  r"""logits = W_L relu(... relu(W_1 [h_1; ...; h_M] + b_1)) + b_L: one MLP on all features.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  "Early" is said of the features: every layer after the encoders sees all modalities, whereas
  `Concat` joins them by one linear map. Early fusion of raw inputs is this head on encoders that do
  nothing. Sequences [B, T, D] are flattened: joined step by step or one after the other, the
  columns are the same but for their order.

  hidden: widths of the hidden layers, default (100,), the MLP(., 100, 10) of MultiBench on
  AV-MNIST. Absent rows count as zeros; any M >= 1. Raises ValueError for a width below 1. Liang et
  al., MultiBench: Multiscale Benchmarks for Multimodal Representation Learning, NeurIPS 2021.
  """

  hidden: tuple[int, ...] = (100,)

  def __post_init__(self):
    check_widths(self.hidden)
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    return mlp(concat_vectors(vectors(features, mask)), self.hidden, num_classes), None
