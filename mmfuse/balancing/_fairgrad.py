"""FairGrad: alpha-fair shares of the improvement. An aggregator.

Ban and Ji: "Fair Resource Allocation in Multi-Task Learning", ICML 2024. The solver here is shared
with Nash-MTL, which is alpha = 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._gram_rule import (
  check_max_norm,
  gram_aggregator,
  shorten,
  sum_to_count,
  unit_gram,
)

_LEAST = 1e-6  # smallest eigenvalue of the cosines: opposite gradients have no finite solution
_FLOOR = 1e-12  # of v: what large alphas give an objective that the others serve already
_ITERATIONS, _DONE = 100, 1e-5


class FairgradState(NamedTuple):
  """What the equations decided last."""

  weights: jax.Array  # [K], w > 0, multiplier of each gradient


def fairgrad_weights(
  gram: jax.Array, alpha: float = 1.0, present: jax.Array | None = None
) -> jax.Array:
  r"""w > 0 [K] with (A w)_i = w_i^{-1 / alpha} for every i; A = G G^T [K, K].

  The minimum of the strictly convex 1/2 w^T A w - \sum_i phi(w_i), phi' = w^{-1 / alpha}, by a
  damped Newton method on relative steps (at most 100, no line search).

  Args:
    gram: A.
    alpha: > 0. 1 is Nash-MTL (proportional fairness); larger helps the worst objective more; to 0
      it tends to maximise the total improvement.
    present: bool [K]; absent objectives get 0. With a zero gradient among the present ones there is
      no solution: equal weights on the others, of the length that solves the sum of the equations.
  """
  here = _groups.everyone(present, gram.shape[0])
  power = 1.0 / alpha
  cosines, norms, moving = unit_gram(gram, here)
  ridge = jnp.maximum(_LEAST - jnp.linalg.eigvalsh(cosines)[0], 0.0)
  cosines = cosines + ridge * jnp.eye(len(norms), dtype=jnp.float32)
  top = jnp.max(jnp.where(moving, norms, 0.0), initial=0.0)
  top = jnp.where(top > 0, top, 1.0)
  relative = jnp.where(moving, norms / top, 1.0)
  # With v = n w the equations read (C v)_i = n_i^{p - 1} v_i^{-p}.
  fair = _solve(cosines, relative ** (power - 1.0), power, moving) / relative
  equal = moving.astype(jnp.float32)
  length = (equal * relative) @ cosines @ (equal * relative)
  equal = equal * (equal.sum() / jnp.where(length > 0, length, 1.0)) ** (1.0 / (1.0 + power))
  weights = jnp.where(jnp.all(moving | ~here), jnp.where(moving, fair, 0.0), equal)
  return weights * top ** (-2.0 / (1.0 + power))


def _solve(cosines, target, power, moving):
  r"""v > 0 with v_i^p (C v)_i = k_i, by Newton on the relative step y: v <- v (1 + t y).

  Along the step the curvature grows at most by (1 - t m)^{-(p + 1)}, m = max(-y): the t at which
  that bound stops the descent is (1 - (1 + p m)^{-1 / p}) / m; it keeps v > 0 and tends to 1.
  """
  start = jnp.where(moving, target ** (1.0 / (1.0 + power)), 1.0)
  mass = jnp.sum(target * start ** (1.0 - power))
  start = start * (mass / (start @ cosines @ start)) ** (1.0 / (1.0 + power))
  start = jnp.maximum(start, _FLOOR)

  def body(carry):
    v, _, i = carry
    wanted = target * v ** (1.0 - power)
    hessian = v[:, None] * cosines * v[None, :] + jnp.diag(power * wanted)
    # Unit diagonal: with alpha far from 1 the entries of v differ by orders of magnitude.
    scale = 1.0 / jnp.sqrt(jnp.diagonal(hessian))
    slope = v * (cosines @ v) - wanted
    y = -scale * jnp.linalg.solve(scale[:, None] * hessian * scale[None, :], scale * slope)
    down = jnp.maximum(-y.min(), 0.0)
    safe = jnp.where(down > 0, down, 1.0)
    t = jnp.where(down > 1e-4, -jnp.expm1(-jnp.log1p(power * safe) / power) / safe, 1.0)
    return jnp.maximum(v * (1.0 + t * y), _FLOOR), jnp.max(jnp.abs(y)), i + 1

  def unfinished(carry):
    return (carry[1] > _DONE) & (carry[2] < _ITERATIONS)

  return jax.lax.while_loop(unfinished, body, (start, jnp.float32(jnp.inf), jnp.int32(0)))[0]


def aggregate_by_fairgrad(
  num_objectives: int,
  alpha: float = 1.0,
  *,
  max_norm: float | None = 1.0,
  rescale: str = "none",
  scope: str = "global",
) -> Aggregator:
  r"""d = \sum_k w_k g_k with g_i . d = w_i^{-1 / alpha} > 0; gradients [K, *param] -> [*param].

  d descends every objective; with a step size that falls it tends to a Pareto-stationary point, the
  more slowly the larger alpha. The direction does not depend on the scale of the losses for
  alpha = 1 only. |d| does not fall as training converges, and before max_norm it grows above
  alpha = 1 as the gradients shrink: use a decaying schedule, or rescale="sum", max_norm=None.

  Args:
    num_objectives: K >= 1.
    alpha: fairness > 0 (default of the re-implementation: 1; the paper tunes it per problem). In
      float32 the solver is accurate from .5 to 10, which says nothing about a safe step size.
    max_norm: d is shortened to this length, last of all, and the w above with it (official code: K
      times d, then 1; None = the paper's equation).
    rescale: "none" = w as it solves the equations, O(|g|^{-2 / (1 + 1 / alpha)}); "sum" = w scaled
      to sum to the number of present objectives, comparable with the plain sum (then give
      max_norm=None).
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest. Needs owners.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: alpha or max_norm not positive, an unknown option, gradients of another K.
  """
  _groups.check_choice("rescale", rescale, _groups.RESCALE)
  if not alpha > 0:
    raise ValueError(f"alpha must be positive, got {alpha}")
  check_max_norm(max_norm)

  def weigh(gram, here):
    weights = fairgrad_weights(gram, alpha, here)
    weights = sum_to_count(weights, here) if rescale == "sum" else weights
    return shorten(weights, gram, max_norm)

  return gram_aggregator(num_objectives, weigh, FairgradState, scope)


fairgrad = aggregate_by_fairgrad
