"""UPGrad: each gradient projected on the dual cone of all of them, then averaged. An aggregator.

Quinton and Rey: "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232, 2024.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._dual_cone import project_dual_cone
from mmfuse.balancing._gram_rule import gram_rule, unit_gram


class UpgradState(NamedTuple):
  """What the projections came to last."""

  weights: jax.Array  # [K], multiplier of each gradient, >= 1/K (or >= 1)


def upgrad_weights(gram: jax.Array, present: jax.Array | None = None) -> jax.Array:
  r"""w = mean_i v_i [K], v_i = argmin v^T A v over v >= e_i; A = G G^T [K, K].

  Solved for unit gradients, which changes no solution (v_ij = n_i / n_j times that of the cosines)
  and makes the solver's accuracy independent of the scale of the losses.

  Args:
    gram: A.
    present: bool [K]; absent objectives get 0 and are not counted. A zero gradient constrains
      nothing and is projected to zero; its weight is 1/K.
  """
  num = gram.shape[0]
  here = _groups.everyone(present, num)
  cosines, norms, moving = unit_gram(gram, here)
  points = jax.vmap(project_dual_cone, (None, 0))(cosines, jnp.eye(num, dtype=jnp.float32))
  points = points * jnp.where(moving, norms, 0.0)[:, None] / norms[None, :]
  total = jnp.where(moving, points.sum(0), 1.0)
  return jnp.where(here, total / jnp.maximum(here.sum(), 1), 0.0)


def aggregate_by_upgrad(
  num_objectives: int, *, rescale: str = "none", scope: str = "global"
) -> Aggregator:
  r"""d = mean_i proj(g_i) on {d : d . g_k >= 0 for all k}; gradients [K, *param] -> [*param].

  d conflicts with no objective, is zero at Pareto-stationary points only and, where no gradients
  conflict, is their mean. Linear under scaling: an objective's weight in the mean grows with its
  gradient.

  Args:
    num_objectives: K >= 1.
    rescale: "none" = the mean of the projections, as published; "sum" = their sum, comparable with
      the plain sum.
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest. Needs owners.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: an unknown option, gradients of another K.
  """
  return gram_rule(num_objectives, upgrad_weights, UpgradState, rescale=rescale, scope=scope)


upgrad = aggregate_by_upgrad
