"""Nash-MTL: the Nash bargaining solution between the objectives. An aggregator.

Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya: "Multi-Task Learning as a Bargaining
Game", ICML 2022. The convex solver of the released code is replaced by Newton's method.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._fairgrad import fairgrad_weights
from mmfuse.balancing._gram_rule import check_max_norm, shorten, sum_to_count


class NashMtlState(NamedTuple):
  """What the bargaining decided last."""

  weights: jax.Array  # [K], multiplier of each gradient, after rescaling and clipping
  alpha: jax.Array  # [K], last solution of each objective; kept while it is absent
  steps: jax.Array  # int32, updates done; a solution is made at every multiple of update_every


def nash_mtl_weights(gram: jax.Array, present: jax.Array | None = None) -> jax.Array:
  r"""alpha > 0 [K] with alpha_i (A alpha)_i = 1 for every i; A = G G^T [K, K].

  The minimum of 1/2 a^T A a - \sum log a; K = 2: alpha_i = 1 / (n_i sqrt(1 + c)) with the cosine c.
  Scaling g_i by s divides alpha_i by s. |d|^2 = alpha^T A alpha = K, whatever the gradients.

  Args:
    gram: A.
    present: bool [K]; absent objectives get 0. With a zero gradient among the present ones there is
      no solution: equal weights on the others, with |d|^2 their number.
  """
  return fairgrad_weights(gram, 1.0, present)


def aggregate_by_nash_mtl(
  num_objectives: int,
  *,
  max_norm: float | None = 1.0,
  update_every: int = 1,
  rescale: str = "none",
  scope: str = "global",
) -> Aggregator:
  r"""d = \sum_k alpha_k g_k with alpha_i (g_i . d) = 1; gradients [K, *param] -> [*param].

  The direction descends every objective and does not depend on the scale of the losses; with a step
  size that falls it ends at a Pareto-stationary point. |d| does not fall as training converges: use
  a decaying schedule, or rescale="sum", max_norm=None.

  Args:
    num_objectives: K >= 1.
    max_norm: d is shortened to this length, last of all (released default: 1; None = the paper's
      equation). |d| is sqrt(K) when solved at every step, so 1 then divides d by sqrt(K).
    update_every: steps between two solutions, >= 1 (released default: 1); alpha is kept meanwhile,
      and starts at 1.
    rescale: "none" = alpha as it solves the equations, O(1 / |g|); "sum" = scaled to sum to the
      number of present objectives, comparable with the plain sum (then give max_norm=None).
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest, each with its own solution and clipping. Needs owners.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix; the
  reference scales heads by w_k as well.

  Raises:
    ValueError: max_norm not positive, update_every below 1 or above 1 with scope="encoder" (one
      alpha per objective is kept), an unknown option, gradients of another K.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("rescale", rescale, _groups.RESCALE)
  _groups.check_choice("scope", scope, _groups.SCOPES)
  check_max_norm(max_norm)
  if update_every < 1:
    raise ValueError(f"update_every must be at least 1 step, got {update_every}")
  if update_every > 1 and scope == "encoder":
    raise ValueError("update_every > 1 keeps one alpha per objective: it needs scope='global'")

  def init_fn(params):
    del params
    ones = jnp.ones(num_objectives, jnp.float32)
    return NashMtlState(ones, ones, jnp.zeros((), jnp.int32))

  def alpha_of(gram, here, kept, steps):
    if update_every == 1:
      return nash_mtl_weights(gram, here)
    solve = lambda: jnp.where(here, nash_mtl_weights(gram, here), kept)
    return jax.lax.cond(steps % update_every == 0, solve, lambda: kept)

  def update_fn(updates, state, params=None, *, owners=None, present=None, **extra_args):
    del params, extra_args
    _groups.check_stacked(updates, num_objectives)
    alpha = state.alpha

    def weigh(gram, rows, here):
      nonlocal alpha
      index = jnp.array(rows)
      found = alpha_of(gram, here, state.alpha[index], state.steps)
      alpha = alpha.at[index].set(jnp.where(here, found, alpha[index]))
      found = jnp.where(here, found, 0.0)
      found = sum_to_count(found, here) if rescale == "sum" else found
      return shorten(found, gram, max_norm)

    direction, weights = _groups.aggregate(
      weigh, updates, owners, _groups.everyone(present, num_objectives), scope
    )
    return direction, NashMtlState(weights, alpha, state.steps + 1)

  return Aggregator(init_fn, update_fn)


nash_mtl = aggregate_by_nash_mtl
