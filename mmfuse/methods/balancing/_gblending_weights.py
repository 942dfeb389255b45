"""G-Blending's weights: generalisation gained per squared overfitting.

Wang, Tran, Feiszli: "What Makes Training Multi-Modal Classification Networks Hard?", CVPR 2020.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.balancing._groups import check_choice

VARIANTS = ("paper", "released")
_FLOOR = 1e-6  # of |O|, in nats: below it a change of overfitting is rounding


class Blend(NamedTuple):
  """What `gblending_weights` found."""

  weights: jax.Array  # [K], sum 1
  gain: jax.Array  # [K], G: fall of the validation loss, nats
  overfitting: jax.Array  # [K], O: growth of the gap between validation and training loss, nats


def gblending_weights(
  train0: Any, val0: Any, train1: Any, val1: Any, *, variant: str = "paper"
) -> Blend:
  r"""w_k = (G_k / O_k^2) / Z from losses [K] at two checkpoints, 0 and 1.

  G = val0 - val1 and O = (val1 - train1) - (val0 - train0): the convex blend with the smallest
  ratio of overfitting to generalisation, where the objectives overfit independently.

  Args:
    train0, val0: mean losses [K] at the first checkpoint, nats, each objective trained alone.
    train1, val1: the same at the second.
    variant: "paper"; "released": |G| / O^2, the form of a public re-implementation, which also
      rewards an objective that got worse (it takes sums over batches for the losses).

  Guards: G < 0 gives weight 0 ("paper"); |O| counts as at least 1e-6, so that an objective that
  generalises without overfitting takes nearly all; no positive weight at all gives 1/K each.

  Raises:
    ValueError: an unknown variant, losses of different shapes.
  """
  check_choice("variant", variant, VARIANTS)
  shapes = [np.shape(x) for x in (train0, val0, train1, val1)]
  if len(set(shapes)) > 1 or len(shapes[0]) != 1:
    raise ValueError(f"the four losses must be arrays of one length K, got shapes {shapes}")
  train0, val0, train1, val1 = (jnp.asarray(x, float) for x in (train0, val0, train1, val1))
  gain = val0 - val1
  overfitting = (val1 - train1) - (val0 - train0)
  worth = jnp.abs(gain) if variant == "released" else jnp.maximum(gain, 0.0)
  raw = worth / jnp.maximum(jnp.abs(overfitting), _FLOOR) ** 2
  total = raw.sum()
  weights = jnp.where(total > 0, raw / jnp.where(total > 0, total, 1.0), 1.0 / raw.shape[0])
  return Blend(weights, gain, overfitting)
