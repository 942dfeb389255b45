"""GradVac: lift each pair's cosine to what it usually is, not merely to zero. An aggregator.

Wang, Tsvetkov, Firat, Cao: "Gradient Vaccine: Investigating and Improving Multi-task Optimization
in Massively Multilingual Models", ICLR 2021.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups, _shared
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._pcgrad import random_order

_EPS = 1e-8
_TOP = 0.999  # of a target: towards cosine 1 the added multiple grows without bound
_VARIANTS = ("paper", "released")


class GradVacState(NamedTuple):
  """The usual cosines, and what the corrections came to last."""

  weights: jax.Array  # [K], multiplier of each original gradient in the direction
  targets: jax.Array  # [K, K], moving average of cos(p_i, g_j)


def gradvac_weights(
  gram: jax.Array,
  targets: jax.Array,
  order: jax.Array,
  beta: float = 1e-2,
  present: jax.Array | None = None,
  *,
  variant: str = "paper",
) -> tuple[jax.Array, jax.Array]:
  r"""(multipliers [K] of the original gradients in \sum_i p_i, new targets [K, K]).

  For j in order[i], c = cos(p_i, g_j), t = targets[i, j]: where c < t,
  p_i += |p_i| (t sqrt(1 - c^2) - c sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j, after which the
  cosine is t; then targets[i, j] <- (1 - beta) t + beta c. Only A = G G^T is needed.

  Args:
    gram: A [K, K].
    targets: [K, K]; taken as at most .999.
    order: int [K, K], row i is the order in which objective i meets the others; itself is skipped.
    beta: rate of the moving average, in [0, 1].
    present: bool [K]; pairs with an absent objective or a zero gradient are left alone.
    variant: "paper", or "released": the re-implementation moves a target only where c < t, and adds
      1e-8 to the products of norms it divides by, so that small gradients are hardly lifted.
  """
  num = gram.shape[0]
  here = _groups.everyone(present, num)
  gram = jnp.where(here[:, None] & here[None, :], gram, 0.0).astype(jnp.float32)
  sizes = jnp.sqrt(jnp.maximum(jnp.diag(gram), 0.0))
  rows = jnp.arange(num)
  eps = _EPS if variant == "released" else 0.0
  coefficients = jnp.diag(here.astype(jnp.float32))
  for turn in range(num):
    other = order[:, turn]
    dots = jnp.sum(coefficients * gram[other], axis=1)
    own = jnp.sqrt(jnp.maximum(jnp.sum(coefficients @ gram * coefficients, axis=1), 0.0))
    meets = (rows != other) & (own > 0) & (sizes[other] > 0)
    mine, theirs = (jnp.where(meets, n, 1.0) for n in (own, sizes[other]))
    cosine = jnp.clip(dots / (mine * theirs + eps), -1.0, 1.0)
    kept = targets[rows, other]
    target = jnp.minimum(kept, _TOP)
    below = meets & (cosine < target)
    high = jnp.sqrt(1.0 - target**2)
    lift = mine * (target * jnp.sqrt(1.0 - cosine**2) - cosine * high) / (theirs * high + eps)
    lift = jnp.where(below, lift, 0.0)
    coefficients = coefficients + lift[:, None] * jax.nn.one_hot(other, num, dtype=jnp.float32)
    moves = below if variant == "released" else meets
    targets = targets.at[rows, other].set(
      jnp.where(moves, (1.0 - beta) * kept + beta * cosine, kept)
    )
  return coefficients.sum(0), targets


def aggregate_by_gradvac(
  num_objectives: int, beta: float = 1e-2, *, variant: str = "paper", rescale: str = "sum"
) -> Aggregator:
  r"""d = \sum_i p_i, p_i = g_i lifted to its usual cosine with each g_j (see `gradvac_weights`).

  Gradients [K, *param] -> [*param]. All targets start at 0: the first step is PCGrad's. K >= 3
  draws an order from `key`, or takes `order` [K, K] as an extra argument.

  Args:
    num_objectives: K >= 1.
    beta: rate of the moving average of the cosines, in [0, 1] (paper: .01; the LibMTL
      re-implementation: .5).
    variant: "paper": every step moves the averages; "released": only the steps whose cosine lies
      below, so that targets never rise, and with 1e-8 in the denominators.
    rescale: "sum" as published; "mean" divides by the number of present objectives.

  One set of cosines over all shared parameters; with `owners`, heads keep their own plain gradient
  and are left out. An absent objective gets weight 0, and its cosines stay as they are.

  Raises:
    ValueError: a beta outside [0, 1], an unknown option, gradients of another K.
    TypeError: K >= 3 and neither `key` nor `order`.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("variant", variant, _VARIANTS)
  _groups.check_choice("rescale", rescale, ("sum", "mean"))
  if not 0 <= beta <= 1:
    raise ValueError(f"beta must lie in [0, 1], got {beta}")

  def init_fn(params):
    del params
    return GradVacState(
      jnp.ones(num_objectives, jnp.float32),
      jnp.zeros((num_objectives, num_objectives), jnp.float32),
    )

  def update_fn(
    updates, state, params=None, *, key=None, order=None, owners=None, present=None, **extra_args
  ):
    del params, extra_args
    _groups.check_stacked(updates, num_objectives)
    if order is None:
      order = _order(key, num_objectives)
    here = _groups.everyone(present, num_objectives)
    gram = _shared.shared_gram(updates, owners, num_objectives)
    weights, targets = gradvac_weights(
      gram, state.targets, jnp.asarray(order), beta, here, variant=variant
    )
    if rescale == "mean":
      weights = weights / jnp.maximum(here.sum(), 1)
    direction = _shared.combine_shared(weights, updates, owners, here)
    return direction, GradVacState(weights, targets)

  return Aggregator(init_fn, update_fn)


def _order(key: jax.Array | None, num: int) -> jax.Array:
  """A drawn order; two objectives need none, each meets the other once."""
  if num <= 2:
    return jnp.tile(jnp.arange(num, dtype=jnp.int32), (num, 1))
  if key is None:
    raise TypeError(
      "GradVac with 3 or more objectives needs the extra argument key= (or order= [K, K])"
    )
  return random_order(key, num)


gradvac = aggregate_by_gradvac
