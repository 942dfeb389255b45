"""MoCo: the min-norm direction of tracked, not of momentary, gradients. An aggregator.

Fernando, Shen, Liu, Chaudhury, Murugesan, Chen: "Mitigating Gradient Bias in Multi-objective
Learning: A Provably Convergent Approach", ICLR 2023; constants as in the LibMTL re-implementation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import tree
from mmfuse.balancing import _groups, _learned, _shared
from mmfuse.balancing._base import Aggregator

_EPS = 1e-8
_VARIANTS = ("released", "paper")


class MocoState(NamedTuple):
  """Tracked gradients and their weights."""

  weights: jax.Array  # [K], multiplier of each tracked gradient
  shares: jax.Array  # [K], lam on the simplex, kept for objectives absent now
  tracked: Any  # y [K, *param], 0 where only one objective reaches
  steps: jax.Array  # int32, t: steps done


def aggregate_by_moco(
  num_objectives: int,
  beta: float = 0.5,
  gamma: float = 0.1,
  *,
  beta_sigma: float = 0.5,
  gamma_sigma: float = 0.5,
  rho: float = 0.0,
  variant: str = "released",
  rescale: str = "none",
) -> Aggregator:
  r"""d = \sum_k lam_k y_k; gradients [K, *param] -> [*param]. With t = 1, 2, ...:

  y_k <- y_k - beta / t^beta_sigma (y_k - L_k g_k / |g_k|), y = 0 at first;
  lam <- softmax(lam - gamma / t^gamma_sigma (Y Y^T + rho I) lam), lam = 1/K at first.

  The softmax keeps all weights within about a factor e of each other and draws them to 1/K as the
  rate fades: in effect an average of gradients normalised to their losses. The projection on the
  simplex, variant="paper", rests at the min-norm weights. The direction's length is of the size of
  the losses, not of the gradients.

  Args:
    num_objectives: K >= 1.
    beta: rate of the tracking, > 0 (reference code: .5).
    gamma: rate of the weights, >= 0 (reference code: .1).
    beta_sigma, gamma_sigma: their decay, >= 0 (reference code: .5). With it the rates fade over the
      whole training: late steps hardly move y.
    variant: "released": the softmax above, as in LibMTL; "paper": lam <- Proj(lam - ...) on the
      simplex.
    rho: l2 regularisation of the weights, >= 0 (reference code: 0).
    rescale: "none" = convex, as published; "sum" = times the number of present objectives.

  Needs `losses`. With `owners`, heads keep their own plain gradient and are left out of norms, y
  and Y Y^T. An absent objective gets weight 0; its y and its share of lam stay as they are, and the
  present ones divide theirs anew.

  Raises:
    ValueError: a knob out of range, an unknown option, gradients of another K.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("variant", variant, _VARIANTS)
  _groups.check_choice("rescale", rescale, _groups.RESCALE)
  if not beta > 0:
    raise ValueError(f"beta must be positive, got {beta}")
  for name, value in (
    ("gamma", gamma),
    ("beta_sigma", beta_sigma),
    ("gamma_sigma", gamma_sigma),
    ("rho", rho),
  ):
    if not value >= 0:
      raise ValueError(f"{name} must be at least 0, got {value}")

  def init_fn(params):
    uniform = _groups.uniform_weights(num_objectives)
    tracked = jax.tree.map(lambda p: jnp.zeros((num_objectives, *p.shape), jnp.float32), params)
    return MocoState(uniform, uniform, tracked, jnp.zeros((), jnp.int32))

  def update_fn(updates, state, params=None, *, losses, owners=None, present=None, **extra_args):
    del params, extra_args
    _groups.check_stacked(updates, num_objectives)
    here = _groups.everyone(present, num_objectives)
    t = (state.steps + 1).astype(jnp.float32)
    norms = _shared.shared_norms(updates, owners, num_objectives)
    scales = losses.astype(jnp.float32) / (norms + _EPS)
    rates = jnp.where(here, beta / t**beta_sigma, 0.0)
    tracked = _track(state.tracked, updates, owners, scales, rates)
    gram = _shared.shared_gram(tracked, owners, num_objectives)
    lam, mass = _learned.among(state.shares, here)
    slope = jnp.where(here[:, None] & here[None, :], gram, 0.0) @ lam + rho * lam
    onto = _learned.project if variant == "paper" else _learned.softmax
    lam = onto(lam - gamma / t**gamma_sigma * slope, here)
    weights = _groups.rescaled(lam, here, rescale)
    direction = _shared.map_shared(
      lambda reach, _, y: tree.combine(weights, y, reach), updates, owners, here, tracked
    )
    shares = _learned.back(lam, mass, state.shares, here)
    return direction, MocoState(weights, shares, tracked, state.steps + 1)

  return Aggregator(init_fn, update_fn)


def _track(tracked: Any, updates: Any, owners: Any, scales: jax.Array, rates: jax.Array) -> Any:
  """y - rate_k (y - scale_k g_k) on the shared leaves, for the objectives that reach them."""
  old, treedef = jax.tree.flatten(tracked)
  grads = jax.tree.leaves(updates)

  def step(y, g, k):
    return y - rates[k] * (y - scales[k] * g.astype(jnp.float32))

  for i, rows in _shared.shared_leaves(updates, owners, scales.shape[0]).items():
    # Row by row: as one product of [K, *param], XLA computes it again for each of its readers.
    new = [step(y, grads[i][k], k) if k in rows else y for k, y in enumerate(old[i])]
    old[i] = jnp.stack(new)
  return jax.tree.unflatten(treedef, old)


moco = aggregate_by_moco
