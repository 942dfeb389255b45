"""CAGrad: the direction near the mean gradient that helps the worst objective most. An aggregator.

Liu, Liu, Jin, Stone, Liu: "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021;
constants as in the LibMTL re-implementation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._gram_rule import gram_aggregator
from mmfuse.balancing._min_norm import simplex_descent

_RESCALE = (0, 1, 2, "sum")
_EPS = 1e-8


class CagradState(NamedTuple):
  """What the search decided last."""

  weights: jax.Array  # [K], multiplier of each gradient in the direction


def cagrad_weights(
  gram: jax.Array,
  c: float = 0.5,
  present: jax.Array | None = None,
  *,
  rescale: int | str = 1,
) -> tuple[jax.Array, jax.Array]:
  """(simplex weights w [K], multipliers [K]) of CAGrad from the Gram matrix A [K, K].

  w = argmin over the simplex of w^T A u + cc sqrt(w^T A w + 1e-8), u = 1/K, cc = c |g_0| + 1e-8;
  d = g_0 + cc / (|g_w| + 1e-8) g_w.

  Args:
    gram: A = G G^T.
    c: radius around the mean gradient, >= 0 (paper: .5).
    present: bool [K]; absent objectives get 0 and are not counted. None = all present.
    rescale: what d is divided by: 0: 1, 1: 1 + c^2 (released code), 2: 1 + c; "sum": 1 + c^2, times
      the number of present objectives.
  """
  num = gram.shape[0]
  here = _groups.everyone(present, num)
  gram = jnp.where(here[:, None] & here[None, :], gram, 0.0).astype(jnp.float32)
  count = jnp.maximum(here.sum(), 1)
  mean = jnp.where(here, 1.0 / count, 0.0)
  linear = gram @ mean
  radius = c * jnp.sqrt(jnp.maximum(mean @ linear, 0.0) + _EPS) + _EPS

  def length(weights):
    return jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0.0) + _EPS)

  def slope(weights):
    return linear + radius * (gram @ weights) / length(weights)

  weights = simplex_descent(slope, _line_search(gram, linear, radius), here)
  multipliers = mean + radius / (length(weights) + _EPS) * weights
  divisor = {0: 1.0, 1: 1.0 + c**2, 2: 1.0 + c, "sum": 1.0 + c**2}[rescale]
  return weights, multipliers / divisor * (count if rescale == "sum" else 1.0)


def _line_search(gram, linear, radius):
  r"""Exact minimum along e_best - e_worst: l + cc (q1 + t q2) / sqrt(q0 + 2 t q1 + t^2 q2) = 0.

  With s = q1 + t q2 the root is s = -sign(l) |l| sqrt(r / (cc^2 - l^2 / q2)), r = q0 - q1^2 / q2.
  """

  def step(weights, best, worst):
    pulled = gram @ weights
    l = linear[best] - linear[worst]
    q0 = weights @ pulled + _EPS
    q1 = pulled[best] - pulled[worst]
    q2 = gram[best, best] + gram[worst, worst] - 2.0 * gram[best, worst]
    safe = jnp.where(q2 > 0, q2, 1.0)
    rest = jnp.maximum(q0 - q1**2 / safe, 0.0)
    room = radius**2 - l**2 / safe
    root = -l * jnp.sqrt(rest / jnp.where(room > 0, room, 1.0))
    return jnp.where((q2 > 0) & (room > 0), (root - q1) / safe, jnp.inf)

  return step


def aggregate_by_cagrad(
  num_objectives: int, c: float = 0.5, *, rescale: int | str = 1, scope: str = "global"
) -> Aggregator:
  r"""d = g_0 + c |g_0| g_w / |g_w|, g_0 the mean gradient; gradients [K, *param] -> [*param].

  g_w is the simplex combination that makes the worst objective improve most.

  Args:
    num_objectives: K >= 1.
    c: radius around the mean gradient, >= 0 (paper: .5). 0 is the mean.
    rescale: 0 = as is; 1 = divided by 1 + c^2 (default of the released code); 2 = by 1 + c. All are
      on the mean's scale; "sum" = 1 times the number of present objectives.
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest. Needs owners.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: a negative c, an unknown option, gradients of another K.
  """
  _groups.check_choice("rescale", rescale, _RESCALE)
  if not c >= 0:
    raise ValueError(f"c must be at least 0, got {c}")

  def weigh(gram, here):
    return cagrad_weights(gram, c, here, rescale=rescale)[1]

  return gram_aggregator(num_objectives, weigh, CagradState, scope)
