r"""UmURL's loss: what all modalities say together is each modality's own, and these agree. By hand.

L = c_intra \sum_k MSE(z_k, u_k) + c_inter \sum_k MSE(z_k, mean_k z_k) + \sum_k VC(z_k) + VC(u_k)
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.encoders import Norm


def consistency_terms(
  apart: Mapping[str, jax.Array],
  joined: Mapping[str, jax.Array],
  weight: jax.Array | None = None,
  *,
  std: float = 5.0,
  cov: float = 1.0,
) -> dict[str, jax.Array]:
  r"""{"intra": \sum_k MSE(z_k, u_k), "inter": \sum_k MSE(z_k, mean z), "spread": \sum VC of all}.

  MSE is the mean over rows and dimensions; VC(z) = std mean_d relu(1 - sqrt(var_d + 1e-4)) + cov
  \sum_{d != d'} C_dd'^2 / D over the whole batch (`objectives.variance_covariance_loss`). No gradient is
  stopped.

  Args:
    apart: z {modality: [B, D]}.
    joined: u {modality: [B, D]}, of the fused feature through the same projectors.
    weight: [B], 0 = the row counts nowhere; default None, all count alike.
    std, cov: default 5 and 1 (the authors').
  """
  names = sorted(apart)
  weight = jnp.ones(apart[names[0]].shape[0]) if weight is None else weight
  mse = lambda a, b: objectives.weighted_mean(jnp.square(a - b).mean(-1), weight)
  centre = sum(apart[k] for k in names) / len(names)
  spread = jax.vmap(lambda z: objectives.variance_covariance_loss(z, weight, std=std, cov=cov))
  return {
    "intra": jnp.stack([mse(apart[k], joined[k]) for k in names]).sum(),
    "inter": jnp.stack([mse(apart[k], centre) for k in names]).sum(),
    "spread": spread(jnp.stack([*apart.values(), *joined.values()])).sum(),
  }


class Projector(nn.Module):
  """Twice dense, batch norm over the present rows and ReLU, then dense: h [B, 2 H] -> z [B, width]."""

  hidden: int
  width: int

  @nn.compact
  def __call__(self, h: jax.Array, mask: Any, *, train: bool) -> jax.Array:
    for i in range(2):
      h = nn.Dense(self.hidden, name=f"dense{i}")(h)
      h = nn.relu(Norm("batch", name=f"norm{i}")(h, mask, train=train))
    return nn.Dense(self.width, name="out")(h)
