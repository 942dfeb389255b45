"""DualProj: the mean gradient projected on the dual cone of the gradients. An aggregator.

Lopez-Paz and Ranzato: "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, as the
aggregator that Quinton and Rey, arXiv 2406.16232, 2024, make of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._dual_cone import project_dual_cone
from mmfuse.balancing._gram_rule import gram_rule, unit_gram


class DualprojState(NamedTuple):
  """What the projection came to last."""

  weights: jax.Array  # [K], multiplier of each gradient, >= 1/K (or >= 1)


def dualproj_weights(gram: jax.Array, present: jax.Array | None = None) -> jax.Array:
  r"""v = argmin v^T A v over v >= u [K], u = 1/K; A = G G^T [K, K].

  Solved for unit gradients, with u_i n_i in the place of u_i, which changes no solution.

  Args:
    gram: A.
    present: bool [K]; absent objectives get 0 and are not counted. A zero gradient constrains
      nothing; its weight is 1/K.
  """
  here = _groups.everyone(present, gram.shape[0])
  cosines, norms, moving = unit_gram(gram, here)
  target = jnp.where(moving, norms, 0.0)
  top = jnp.max(target, initial=0.0)
  top = jnp.where(top > 0, top, 1.0)
  point = project_dual_cone(cosines, target / top) * top / norms
  return jnp.where(here, jnp.where(moving, point, 1.0) / jnp.maximum(here.sum(), 1), 0.0)


def aggregate_by_dualproj(
  num_objectives: int, *, rescale: str = "none", scope: str = "global"
) -> Aggregator:
  r"""d = proj(mean_i g_i) on {d : d . g_k >= 0 for all k}; gradients [K, *param] -> [*param].

  The conflict-free direction nearest to the mean gradient, zero at Pareto-stationary points only;
  the mean itself where it conflicts with no objective.

  Args:
    num_objectives: K >= 1.
    rescale: "none" = the mean projected, as published; "sum" = the sum projected.
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest. Needs owners.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: an unknown option, gradients of another K.
  """
  return gram_rule(num_objectives, dualproj_weights, DualprojState, rescale=rescale, scope=scope)


dualproj = aggregate_by_dualproj
