"""Convex problems on the simplex that need only a Gram matrix: the min-norm point, and a solver.

Everything here is O(K^2) on scalars; the number of parameters enters only through A = G G^T.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_RELEASED_ITERATIONS, _RELEASED_CHANGE = 250, 1e-5
_ITERATIONS, _RELATIVE_GAP = 500, 1e-6


def min_norm_pair(a, b, d, *, clip_ends: bool = False) -> jax.Array:
  r"""argmin_w |w g_1 + (1 - w) g_2|^2 on [0, 1] from a = g_1.g_1, b = g_1.g_2, d = g_2.g_2.

  w = (d - b) / (a + d - 2b), and an end point where the minimum lies outside. `clip_ends`: ends
  .999 and .001, as in the released MGDA and MMPareto codes.
  """
  high, low = (0.999, 0.001) if clip_ends else (1.0, 0.0)
  width = a + d - 2.0 * b
  inner = (d - b) / jnp.where(width > 0, width, 1.0)
  return jnp.where(b >= a, high, jnp.where(b >= d, low, inner))


def simplex_descent(
  gradient: Callable[[jax.Array], jax.Array],
  step: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
  present: jax.Array,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
  """Minimises a convex function on the simplex over the present objectives [K]; jit-safe.

  Pairwise Frank-Wolfe: move mass from the worst coordinate that has any to the best one, by the
  exact `step(w, best, worst)`, until the duality gap is 1e-6 of the gradient, nothing moves, or 500
  moves. From uniform weights, so equal objectives get equal weights.
  """
  count = jnp.maximum(present.sum(), 1)
  start = jnp.where(present, 1.0 / count, 0.0).astype(dtype)

  def body(carry):
    weights, _, i = carry
    slope = gradient(weights)
    best = jnp.argmin(jnp.where(present, slope, jnp.inf))
    worst = jnp.argmax(jnp.where(present & (weights > 0), slope, -jnp.inf))
    gap = slope[worst] - slope[best]
    done = gap <= _RELATIVE_GAP * jnp.sum(weights * jnp.abs(slope))
    move = jnp.clip(step(weights, best, worst), 0.0, weights[worst])
    moved = weights.at[best].add(move).at[worst].add(-move)
    moved = jnp.where(done, weights, moved)
    return moved, jnp.any(moved != weights), i + 1

  def unfinished(carry):
    return carry[1] & (carry[2] < _ITERATIONS)

  weights = jax.lax.while_loop(unfinished, body, (start, jnp.array(True), jnp.int32(0)))[0]
  return weights / jnp.where(present.any(), weights.sum(), 1.0)


def min_norm(
  gram: jax.Array, present: jax.Array | None = None, *, clip_ends: bool = False
) -> jax.Array:
  """argmin_w w^T A w on the simplex; A [K, K] -> w [K]. Absent objectives get weight 0.

  Args:
    gram: A = G G^T.
    present: bool [K]; None = all present.
    clip_ends: False = the exact minimum; True = the released solver instead: K = 2 with ends .999
      and .001, K >= 3 from the best pair by projected gradient with a line search that keeps .001
      of the old point, until a change below 1e-5. For parity.
  """
  num = gram.shape[0]
  here = jnp.ones(num, bool) if present is None else present
  alone = here.astype(gram.dtype)
  if num == 1:
    return alone
  if num == 2:
    first = min_norm_pair(gram[0, 0], gram[0, 1], gram[1, 1], clip_ends=clip_ends)
    return jnp.where(here.all(), jnp.stack([first, 1.0 - first]), alone)
  if clip_ends:
    return jnp.where(here.sum() > 1, _released_min_norm(gram, here), alone)

  def step(weights, best, worst):
    slope = gram @ weights
    curve = gram[best, best] + gram[worst, worst] - 2.0 * gram[best, worst]
    return jnp.where(
      curve > 0, (slope[worst] - slope[best]) / jnp.where(curve > 0, curve, 1.0), jnp.inf
    )

  return simplex_descent(lambda w: gram @ w, step, here, gram.dtype)


def project_simplex(point: jax.Array) -> jax.Array:
  """Euclidean projection of [K] onto the simplex."""
  ranked = jnp.sort(point)[::-1]
  shifts = (jnp.cumsum(ranked) - 1.0) / jnp.arange(1, point.shape[0] + 1, dtype=point.dtype)
  last = jnp.sum(ranked > shifts) - 1
  return jnp.maximum(point - shifts[last], 0.0)


def _best_pair(gram, present):
  num = gram.shape[0]
  first, second = (
    jnp.array(i) for i in zip(*[(i, j) for i in range(num) for j in range(i + 1, num)])
  )
  a, b, d = gram[first, first], gram[first, second], gram[second, second]
  weight = min_norm_pair(a, b, d, clip_ends=True)
  cost = jnp.where(b >= a, a, jnp.where(b >= d, d, d + weight * (b - d)))
  k = jnp.argmin(jnp.where(present[first] & present[second], cost, jnp.inf))
  return jnp.zeros(num, gram.dtype).at[first[k]].set(weight[k]).at[second[k]].set(1.0 - weight[k])


def _next_point(weights, slope, present):
  mean = jnp.sum(jnp.where(present, slope, 0.0)) / present.sum()
  slope = jnp.where(present, slope - mean, 0.0)
  safe = jnp.where(slope == 0, 1.0, slope)
  to_zero = jnp.where(slope < 0, -weights / safe, 0.0)
  to_one = jnp.where(slope > 0, (1.0 - weights) / safe, 0.0)
  zero = jnp.min(jnp.where(to_zero > 1e-7, to_zero, jnp.inf))
  one = jnp.min(jnp.where(to_one > 1e-7, to_one, jnp.inf))
  length = jnp.minimum(jnp.where(jnp.isfinite(zero), zero, 1.0), one)
  moved = weights + length * slope
  return jnp.where(present, project_simplex(jnp.where(present, moved, -1e9)), 0.0)


def _released_keep(gram, old, new):
  """`min_norm_pair` of two points, from their difference: a + d - 2b cancels for close ones."""
  delta = new - old
  pulled = gram @ delta
  width = delta @ pulled
  inner = (new @ pulled) / jnp.where(width > 0, width, 1.0)
  return jnp.where(old @ pulled >= 0, 0.999, jnp.where(new @ pulled <= 0, 0.001, inner))


def _released_min_norm(gram, present):
  def body(carry):
    weights, _, i = carry
    new = _next_point(weights, -(gram @ weights), present)
    moved = weights + (1.0 - _released_keep(gram, weights, new)) * (new - weights)
    going = jnp.sum(jnp.abs(moved - weights)) >= _RELEASED_CHANGE
    # That code returns the point before the last move.
    return jnp.where(going, moved, weights), going, i + 1

  def unfinished(carry):
    return carry[1] & (carry[2] < _RELEASED_ITERATIONS)

  start = (_best_pair(gram, present), jnp.array(True), jnp.int32(0))
  return jax.lax.while_loop(unfinished, body, start)[0]
