"""Deep set over modalities: pool the projected features, whoever is there.

Zaheer et al.: Deep Sets, NeurIPS 2017; the form of TorchMultimodal.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._attention import masked_softmax
from mmfuse.fusion._early import check_widths, mlp
from mmfuse.fusion._features import presence, vectors

POOLS = ("mean", "max", "median")
AXES = ("feature", "modality")


def pool_present(x: jax.Array, present: jax.Array, pool: str = "mean") -> jax.Array:
  """Mean, maximum or lower median over the present modalities of x [B, M, D], present [B, M].

  Returns [B, D], 0 where nobody is present.
  """
  here, count = present[..., None], present.sum(-1)[:, None]
  if pool == "mean":
    pooled = jnp.where(here, x, 0.0).sum(1) / jnp.maximum(count, 1).astype(x.dtype)
  elif pool == "max":
    pooled = jnp.where(here, x, -jnp.inf).max(1)
  else:
    middle = jnp.maximum(count - 1, 0) // 2
    ordered = jnp.sort(jnp.where(here, x, jnp.inf), 1)
    pooled = jnp.take_along_axis(ordered, middle[:, None], 1)[:, 0]
  return jnp.where(count > 0, pooled, 0.0)


def normalized(
  x: jax.Array, present: jax.Array, axis: str = "feature", p: float = 2.0
) -> jax.Array:
  """x [B, M, D] / |x|_p, over the features of each modality or, unit by unit, over the modalities.

  Absent modalities count as 0; where the norm is 0, so is the result, without gradient.
  """
  x = jnp.where(present[..., None], x, 0.0)
  power = jnp.sum(jnp.abs(x) ** p, 2 if axis == "feature" else 1, keepdims=True)
  alive = power > 0
  return jnp.where(alive, x / jnp.where(alive, power, 1.0) ** (1 / p), 0.0)


def set_weights(scores: jax.Array, present: jax.Array) -> jax.Array:
  """Softmax of scores [B, M] over those present, as [B, M, 1]."""
  return masked_softmax(scores, present)[..., None]


class DeepSet(nn.Module):
  """logits = MLP(pool_m (a_m y_m / |a_m y_m|)), y_m = P_m h_m + p_m, pool mean, max or median.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  P_m maps to the smallest width. Absent modalities are in neither norm, softmax nor pool; with
  nobody the pool is 0. Defaults ours (the source asks for all).

  Args:
    pool: "mean" (default), "max", "median" (the lower of two).
    attention: True weighs by a = softmax_m(w' tanh(A y_m + c) + d); default False.
    normalize: "feature" (default), each y_m by its own norm, before which attention cancels, as in
      the source; or "modality", every unit by its norm over the modalities.
    hidden: widths of the MLP, default () for a linear head.

  Raises:
    ValueError: an unknown pool or normalize, or a width below 1.

  Zaheer et al., NeurIPS 2017; TorchMultimodal (facebookresearch/multimodal).
  """

  pool: str = "mean"
  attention: bool = False
  normalize: str = "feature"
  hidden: tuple[int, ...] = ()

  def __post_init__(self):
    for name, value, choices in (("pool", self.pool, POOLS), ("normalize", self.normalize, AXES)):
      if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    check_widths(self.hidden)
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = vectors(features, mask)
    present = presence(flat, mask)
    width = min(h.shape[-1] for h in flat.values())
    y = jnp.stack([nn.Dense(width, name=f"project_{m}")(h) for m, h in flat.items()], 1)
    if self.attention:
      scores = nn.Dense(1, name="score")(nn.tanh(nn.Dense(width, name="look")(y)))
      y = y * set_weights(scores[..., 0], present).astype(y.dtype)
    x = pool_present(normalized(y, present, self.normalize), present, self.pool)
    return mlp(x, self.hidden, num_classes), None
