"""STCH: smooth Tchebycheff scalarisation of log-losses relative to a nadir. A weighting.

Lin, Zhang, Yang, Liu, Wang, Zhang: "Smooth Tchebycheff Scalarization for Multi-Objective
Optimization", ICML 2024; warm-up and nadir as in the LibMTL re-implementation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing._base import Weighting
from mmfuse.balancing._groups import check_count, everyone

_TINY = 1e-20  # inside the logarithm, as in the reference code


class StchState(NamedTuple):
  """Weights, and the nadir the losses are measured against."""

  weights: jax.Array  # [K], what each loss was multiplied by
  nadir_sum: jax.Array  # [K], sum of the losses over the averaging epoch
  nadir_count: jax.Array  # [K], batches of that epoch in which the objective was present


def aggregate_by_stch(num_objectives: int, mu: float = 1.0, *, warmup: int = 4) -> Weighting:
  r"""Gradient of K mu log \sum_k (L_k / z_k)^(1 / mu): w_k = K softmax(log(L / z) / mu)_k / L_k.

  Epochs up to and including `warmup` descend \sum_k log L_k (w_k = 1 / L_k); the epoch `warmup`
  itself also averages the losses into the nadir z, which is used from the next one on. Without such
  an epoch z is 1. K is the number of present objectives.

  Args:
    num_objectives: K >= 1.
    mu: smoothing temperature > 0 (reference code: 1).
    warmup: first epoch, counted from 0, whose losses make the nadir (reference code: 4).

  Needs `losses` and `clock` (its `epoch`) as extra arguments.

  Raises:
    ValueError: mu not positive, warmup negative.
  """
  num_objectives = check_count(num_objectives)
  if not mu > 0:
    raise ValueError(f"mu must be positive, got {mu}")
  if warmup < 0:
    raise ValueError(f"warmup must be at least 0 epochs, got {warmup}")

  def init_fn(params):
    del params
    zeros = jnp.zeros(num_objectives, jnp.float32)
    return StchState(jnp.ones(num_objectives, jnp.float32), zeros, zeros)

  def weigh(losses, state, params=None, *, clock, present=None, **extra_args):
    del params, extra_args
    here = everyone(present, num_objectives)
    losses = jnp.where(here, losses.astype(jnp.float32), 1.0)
    averaging = (clock.epoch == warmup) & here
    nadir_sum = state.nadir_sum + jnp.where(averaging, losses, 0.0)
    nadir_count = state.nadir_count + averaging.astype(jnp.float32)
    nadir = jnp.where(nadir_count > 0, nadir_sum / jnp.maximum(nadir_count, 1.0), 1.0)
    logs = jnp.where(here, jnp.log(losses / jnp.maximum(nadir, _TINY) + _TINY) / mu, -jnp.inf)
    share = jnp.where(here, jnp.exp(logs - jnp.where(here.any(), logs.max(), 0.0)), 0.0)
    share = share / jnp.maximum(share.sum(), 1.0) * here.sum()
    weights = jnp.where(clock.epoch <= warmup, 1.0, share) / (losses + _TINY)
    weights = jnp.where(here, weights, 0.0)
    return weights, StchState(weights, nadir_sum, nadir_count)

  return Weighting(init_fn, weigh)
