"""MIMO: priority for the worst uni-modal objective, by a smoothed penalty. A weighting.

Fernando, Ram, Zhou, Dan, Samulowitz, Baracaldo, Chen: "Mitigating Modality Imbalance in Multi-modal
Learning via Multi-objective Optimization", arXiv 2511.06686, 2025. Reconstructed from the abstract:
the constants and schedules of the paper are not known and stay the user's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing._base import Weighting
from mmfuse.balancing._groups import check_choice, check_count, everyone

Schedule = Callable[[jax.Array], jax.Array]
_FORMS = ("lse", "hard_max")


class MimoState(NamedTuple):
  """What the smooth maximum decided last."""

  weights: jax.Array  # [K], (1, lam * softmax(f / mu)): what each loss was multiplied by
  steps: jax.Array  # int32, steps done; drives schedules where the step passes no clock


def mimo_objective(losses, lam=1.0, mu=1.0, *, present=None) -> jax.Array:
  r"""Phi = f_0 + lam * mu * log \sum_m exp(f_m / mu), whose gradient is MIMO's direction.

  The smoothed maximum lies in [max f, max f + mu log M]. Nothing is stopped: the softmax weights
  come from differentiating the log-sum-exp.

  Args:
    losses: [K], nats; row 0 is the fused loss. On a mesh they must be global means.
    lam: penalty on the worst modality, >= 0.
    mu: temperature in nats, > 0.
    present: bool [K]; absent modalities are left out.
  """
  losses = losses.astype(jnp.float32)
  here = everyone(present, losses.shape[0])
  fused = jnp.where(here[0], losses[0], 0.0)
  if losses.shape[0] == 1:
    return fused
  own, here = losses[1:], here[1:]
  top = jax.lax.stop_gradient(jnp.max(jnp.where(here, own, -jnp.inf)))
  top = jnp.where(here.any(), top, 0.0)
  mass = jnp.where(here, jnp.exp(jnp.where(here, own - top, 0.0) / mu), 0.0).sum()
  smooth = top + mu * jnp.log(jnp.where(here.any(), mass, 1.0))
  return fused + lam * smooth


def worst_weights(losses, mu, present, form: str = "lse") -> jax.Array:
  """softmax(f / mu) over the present modalities [M]; `hard_max`: the worst one, ties shared."""
  masked = jnp.where(present, losses, -jnp.inf)
  top = jnp.where(present.any(), masked.max(), 0.0)
  if form == "hard_max":
    raw = (present & (masked == top)).astype(jnp.float32)
  else:
    raw = jnp.where(present, jnp.exp((jnp.where(present, losses, top) - top) / mu), 0.0)
  return raw / jnp.maximum(raw.sum(), 1.0)  # the largest term is exactly 1


def _value(knob: float | Schedule, step: jax.Array) -> jax.Array:
  return jnp.asarray(knob(step) if callable(knob) else knob, jnp.float32)


def aggregate_by_mimo(
  num_objectives: int,
  lam: float | Schedule = 1.0,
  mu: float | Schedule = 1.0,
  *,
  form: str = "lse",
  normalize: bool = False,
) -> Weighting:
  r"""d = g_0 + lam \sum_m w_m g_m with w = softmax(f / mu); gradients [K, *param] -> [*param].

  The gradient of `mimo_objective`: one backward pass, O(M) work on scalars, no solver. lam = 0 is
  training on the fused loss alone; mu -> inf gives each modality lam / M; mu -> 0 the worst lam.
  A modality whose loss is high because it is noisy, not because it is under-trained, is pushed all
  the same: a large mu softens that.

  Args:
    num_objectives: K = 1 + M; row 0 is the fused objective.
    lam: penalty >= 0, or a schedule of the step. The paper's value is unknown; 1 is a safe start.
    mu: temperature > 0 in nats, or a schedule. Unknown too; with 1 the rule stays near the uniform
      sum, which is safe where a modality carries label noise; .05 to .2 presses the worst modality.
    form: "lse", or "hard_max" for the limit mu -> 0.
    normalize: divide by 1 + lam, so that lam does not change the effective step (not in the paper).

  Schedules are called with `clock.step`, or with the rule's own counter where no clock is passed.

  Raises:
    ValueError: a negative lam, a mu that is not positive, an unknown form.
  """
  num_objectives = check_count(num_objectives)
  check_choice("form", form, _FORMS)
  if not callable(lam) and not lam >= 0:
    raise ValueError(f"lam must be at least 0, got {lam}")
  if not callable(mu) and not mu > 0:
    raise ValueError(f"mu must be positive, got {mu}")

  def init_fn(params):
    del params
    return MimoState(jnp.ones(num_objectives, jnp.float32), jnp.zeros((), jnp.int32))

  def weigh(losses, state, params=None, *, present=None, clock=None, **extra_args):
    del params, extra_args
    step = state.steps if clock is None else clock.step
    lam_now = _value(lam, step)
    here = everyone(present, num_objectives)
    fused = here[:1].astype(jnp.float32)
    if num_objectives == 1:
      return fused, MimoState(fused, state.steps + 1)
    own = worst_weights(losses[1:].astype(jnp.float32), _value(mu, step), here[1:], form)
    weights = jnp.concatenate([fused, lam_now * own])
    if normalize:
      weights = weights / (1.0 + lam_now)
    return weights, MimoState(weights, state.steps + 1)

  return Weighting(init_fn, weigh)
