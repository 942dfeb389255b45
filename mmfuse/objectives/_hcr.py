"""The loss of rows whose subset of modalities is a hard one: MMANet (MAR), DMRNet (HCR)."""

import jax
import jax.numpy as jnp

from mmfuse.objectives._margin import check_variant


def hard_combination_loss(
  losses: jax.Array, hard: jax.Array, weight: jax.Array, *, variant: str = "intended"
) -> jax.Array:
  r"""L = \sum_i u_i 1[s_i hard] l_i / \sum_i u_i; scalar, 0 where no row is hard.

  s_i is the subset of modalities that row i has, u_i its weight. The sum is divided by all rows, not
  by the hard ones: Wei, Luo and Luo, CVPR 2023, eq. 14; Wei, Luo, Wang and Luo, ECCV 2024.

  Args:
    losses: l [B], of each row.
    hard: bool [B].
    weight: u [B]; a row of weight 0 is never read.
    variant: "intended" (default). "released": the number of hard rows times the mean loss of all rows,
      what both released codes compute (masks [B, 1, 1, 1] times losses [B] are [B, 1, 1, B]).

  Raises:
    ValueError: an unknown variant.
  """
  check_variant(variant)
  weight = weight.astype(jnp.float32)
  counts = weight > 0
  total = jnp.where(counts, weight, 0.0).sum()
  share = jnp.where(counts, weight, 0.0) / jnp.where(total > 0, total, 1.0)
  if variant == "released":
    number = (hard & counts).sum().astype(jnp.float32)
    return number * jnp.where(counts, losses * share, 0.0).sum()
  return jnp.where(counts & hard, losses * share, 0.0).sum()
