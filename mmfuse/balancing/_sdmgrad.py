"""SDMGrad: min-norm weights pulled towards the mean direction, by double sampling. An aggregator.

Xiao, Ban, Ji: "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
Algorithms", NeurIPS 2023; inner solver as in the released code and LibMTL, but for its step size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups, _learned
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._double_sampling import double_sampling

_EPS = 1e-8
_STEP = 5.0  # of LibMTL's inner search
_VARIANTS = ("paper", "released")


class SdmgradState(NamedTuple):
  """The weights, where the next step's search starts."""

  weights: jax.Array  # [K], multiplier of each gradient in the direction
  shares: jax.Array  # [K], w on the simplex, kept for objectives absent now


def sdmgrad_shares(
  gram: jax.Array,
  start: jax.Array,
  lam: float = 0.3,
  present: jax.Array | None = None,
  *,
  iterations: int = 20,
  learning_rate: float = 1.0,
  momentum: float = 0.5,
  variant: str = "paper",
) -> jax.Array:
  r"""Projected gradient steps for min over the simplex of |\sum w g + lam g_0|^2 / 2: w [K].

  v <- momentum v + (A w + lam A 1/K), w <- Proj(w - step v), v = 0 at first, with A divided by
  mean(sqrt(max(diag A, 0)))^2 + 1e-8.

  Args:
    gram: A = G1 G2^T [K, K] of two batches (not symmetric).
    start: w [K] to begin with.
    lam: weight of the mean gradient g_0, >= 0.
    present: bool [K]; the absent are left out of A, of the means and of w.
    iterations, momentum: of the inner search.
    learning_rate: "paper": step = learning_rate / (largest absolute row sum of A); a symmetric A is
      stable below 2 (1 + momentum). "released": step = 5 learning_rate, whatever A.
    variant: "paper" or "released".
  """
  here = _groups.everyone(present, gram.shape[0])
  count = jnp.maximum(here.sum(), 1)
  gram = jnp.where(here[:, None] & here[None, :], gram, 0.0)
  scale = jnp.sum(jnp.sqrt(jnp.maximum(jnp.diag(gram), 0.0))) / count
  gram = gram / (scale**2 + _EPS)
  pull = lam * gram.sum(1) / count
  top = jnp.max(jnp.abs(gram).sum(1))
  top = jnp.where(top > 0, top, 1.0)
  rate = _STEP * learning_rate if variant == "released" else learning_rate / top

  def step(_, carry):
    w, v = carry
    v = momentum * v + gram @ w + pull
    return _learned.project(w - rate * v, here), v

  return jax.lax.fori_loop(0, iterations, step, (start, jnp.zeros_like(start)))[0]


def aggregate_by_sdmgrad(
  num_objectives: int,
  lam: float = 0.3,
  *,
  iterations: int = 20,
  learning_rate: float = 1.0,
  momentum: float = 0.5,
  variant: str = "paper",
  rescale: str = "none",
) -> Aggregator:
  r"""d = (\sum_k w_k g_k + lam g_0) / (1 + lam), w = `sdmgrad_shares`, g_0 the mean gradient.

  Gradients [K, *param] -> [*param]. lam = 0 is the min-norm direction, a large lam the mean. The
  two batches whose product weighs, and the one that is descended, are thirds of the step's batch:
  the extra argument `parts` ([S, K, *param] leaves), S = `PARTS` = 3. S > 3: the mean of the rest
  is descended. S = 2: the mean of both. Without `parts` all are the gradients given, and their
  product overstates noisy objectives: biased.

  Args:
    num_objectives: K >= 1.
    lam: pull towards the mean gradient, >= 0 (released code: .3).
    iterations, momentum: of the search (released code: 20, .5).
    learning_rate: > 0, of the search, relative to the largest row sum; ours. LibMTL: 5; official code:
      10, direction times K, clipped to norm 1. Steps that long jump between vertices.
    variant: "paper": steps as above; "released": LibMTL's fixed step, 5 learning_rate.
    rescale: "none" = convex, as published; "sum" = times the number of present objectives.

  With `owners`, heads keep their own plain gradient, of the whole batch, and are left out of the
  Gram matrix. An absent objective gets weight 0 and keeps its share of w; the present ones divide
  theirs anew. A present one whose gradient is zero in one of the two parts that weigh, as without a
  row there, keeps its share too: its zero products would say that it is solved.

  Raises:
    ValueError: a knob out of range, an unknown option, gradients of another K, a single part.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("variant", variant, _VARIANTS)
  _groups.check_choice("rescale", rescale, _groups.RESCALE)
  if not lam >= 0:
    raise ValueError(f"lam must be at least 0, got {lam}")
  if iterations < 1:
    raise ValueError(f"iterations must be at least 1, got {iterations}")
  if not learning_rate > 0:
    raise ValueError(f"learning_rate must be positive, got {learning_rate}")
  if not 0 <= momentum < 1:
    raise ValueError(f"momentum must lie in [0, 1), got {momentum}")

  def search(gram, start, seen):
    return sdmgrad_shares(
      gram,
      start,
      lam,
      seen,
      iterations=iterations,
      learning_rate=learning_rate,
      momentum=momentum,
      variant=variant,
    )

  def mix(w, here):
    mean = here / jnp.maximum(here.sum(), 1)
    return (w + lam * mean) / (1.0 + lam)

  return double_sampling(num_objectives, search, SdmgradState, rescale=rescale, mix=mix)


sdmgrad = aggregate_by_sdmgrad
