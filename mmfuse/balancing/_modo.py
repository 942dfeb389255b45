"""MoDo: min-norm weights by double sampling, which removes the bias of one batch. An aggregator.

Chen, Fernando, Ying, Chen: "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
Generalization and Conflict-Avoidance", NeurIPS 2023; constants as in the LibMTL re-implementation.
"""

from typing import NamedTuple

import jax

from mmfuse.balancing import _groups, _learned
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._double_sampling import double_sampling


class ModoState(NamedTuple):
  """The weights, which move slowly."""

  weights: jax.Array  # [K], multiplier of each gradient
  shares: jax.Array  # [K], lam on the simplex, kept for objectives absent now


def aggregate_by_modo(
  num_objectives: int, gamma: float = 1e-3, rho: float = 0.1, *, rescale: str = "none"
) -> Aggregator:
  r"""lam <- Proj(lam - gamma (G1 G2^T lam + rho lam)), d = \sum_k lam_k g3_k; lam = 1/K at first.

  G1, G2, G3 are gradients of three independent batches, here thirds of the step's batch: the extra
  argument `parts` ([S, K, *param] leaves), S = `PARTS` = 3, so that a step sees no more examples
  than any other rule's. S > 3: G3 is the mean of the rest. S = 2: G3 is the mean of both. Without
  `parts` all three are the gradients [K, *param], and E[G G^T] overstates noisy objectives: biased.

  Args:
    num_objectives: K >= 1.
    gamma: rate of the weights, >= 0 (reference code: .001). 0 is the mean gradient.
    rho: l2 regularisation of the weights, >= 0 (reference code: .1).
    rescale: "none" = convex, as published; "sum" = times the number of present objectives.

  With `owners`, heads keep their own plain gradient, of the whole batch, and are left out of the
  Gram matrix. An absent objective gets weight 0 and keeps its share of lam; the present ones divide
  theirs anew. A present one whose gradient is zero in G1 or G2, as without a row there, keeps its
  share too: its zero products would say that it is solved.

  Raises:
    ValueError: a negative knob, an unknown option, gradients of another K, a single part.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("rescale", rescale, _groups.RESCALE)
  for name, value in (("gamma", gamma), ("rho", rho)):
    if not value >= 0:
      raise ValueError(f"{name} must be at least 0, got {value}")

  def step(gram, lam, seen):
    # The unseen have lam 0, and the projection leaves their entries at 0.
    return _learned.project(lam - gamma * (gram @ lam + rho * lam), seen)

  return double_sampling(num_objectives, step, ModoState, rescale=rescale)


modo = aggregate_by_modo
