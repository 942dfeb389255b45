"""GradNorm: weights that give every objective a gradient norm fit for its pace. An aggregator.

Chen, Badrinarayanan, Lee, Rabinovich: "GradNorm: Gradient Normalization for Adaptive Loss Balancing
in Deep Multitask Networks", ICML 2018; softmax weights and the start at epoch 1 as in the LibMTL
re-implementation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups, _learned, _shared
from mmfuse.balancing._base import Aggregator


class GradNormState(NamedTuple):
  """Weights, what they are learned from, and the losses of the first epoch."""

  weights: jax.Array  # [K], multiplier of each gradient
  logits: jax.Array  # [K], weights = K softmax(logits)
  first_sum: jax.Array  # [K], sum of the losses over epoch 0, or the first one after it
  first_count: jax.Array  # [K], the batches in that sum
  opt: _learned.Adam  # Adam of each logit, leaves [K]


def gradnorm_loss(
  logits: jax.Array,
  norms: jax.Array,
  losses: jax.Array,
  first: jax.Array,
  alpha: float = 1.5,
  present: jax.Array | None = None,
) -> jax.Array:
  r"""\sum_k |n_k - sg(mean(n) r_k^alpha)|, n = w |g|, w = K softmax(logits): a scalar.

  r_k is the relative inverse training rate (L_k / first_k) / mean(L / first). K and the means count
  the present objectives. A loss whose `first` is not positive is taken as unchanged; a negative
  ratio counts as 0.

  Args:
    logits: [K].
    norms: |g_k| [K] over the shared parameters.
    losses: L [K], nats.
    first: mean losses [K] of the first epoch.
    alpha: strength of the pull to a common rate, >= 0. 0 makes all norms equal.
    present: bool [K].
  """
  here = _groups.everyone(present, logits.shape[0])
  count = jnp.maximum(here.sum(), 1)
  ratios = jnp.where(first > 0, losses / jnp.where(first > 0, first, 1.0), 1.0)
  ratios = jnp.where(here, jnp.maximum(ratios, 0.0), 0.0)
  mean = ratios.sum() / count
  rates = jnp.where(mean > 0, ratios / jnp.where(mean > 0, mean, 1.0), 1.0)
  scaled = count * _learned.softmax(logits, here) * jnp.where(here, norms, 0.0)
  target = jax.lax.stop_gradient(scaled.sum() / count * rates**alpha)
  return jnp.sum(jnp.where(here, jnp.abs(scaled - target), 0.0))


def aggregate_by_gradnorm(
  num_objectives: int, alpha: float = 1.5, *, learning_rate: float = 0.025
) -> Aggregator:
  r"""d = \sum_k w_k g_k, w = K softmax(s), s descends `gradnorm_loss`; [K, *param] -> [*param].

  Epoch 0 is the plain sum and averages the losses the later ones are compared with; an objective
  absent for all of it is compared with its loss at its first presence. The step is made with the
  weights from before it, as in the reference code.

  Args:
    num_objectives: K >= 1.
    alpha: strength of the pull to a common rate (paper and reference code: 1.5).
    learning_rate: of Adam on s. The paper leaves s to the network's optimiser; here it has its own,
      whose step does not depend on the size of the gradients: .025, FAMO's published value.

  Needs `losses` and `clock` (its `epoch`) as extra arguments. One set of norms, over the parameters
  that several objectives reach; with `owners`, heads keep their own plain gradient, where the
  reference scales heads by w_k as well. An absent objective gets weight 0, and its logit, Adam and
  first loss stay as they are.

  Raises:
    ValueError: a negative alpha or learning rate, gradients of another K.
  """
  num_objectives = _groups.check_count(num_objectives)
  if not alpha >= 0:
    raise ValueError(f"alpha must be at least 0, got {alpha}")
  _learned.check_rate("learning_rate", learning_rate)

  def init_fn(params):
    del params
    zeros = jnp.zeros(num_objectives, jnp.float32)
    return GradNormState(
      jnp.ones(num_objectives, jnp.float32), zeros, zeros, zeros, _learned.init_adam(num_objectives)
    )

  def update_fn(
    updates, state, params=None, *, losses, clock, owners=None, present=None, **extra_args
  ):
    del params, extra_args
    _groups.check_stacked(updates, num_objectives)
    here = _groups.everyone(present, num_objectives)
    losses = losses.astype(jnp.float32)
    averaging = here & ((clock.epoch == 0) | (state.first_count == 0))
    first_sum = state.first_sum + jnp.where(averaging, losses, 0.0)
    first_count = state.first_count + averaging.astype(jnp.float32)
    first = first_sum / jnp.maximum(first_count, 1.0)
    norms = jnp.sqrt(jnp.diag(_shared.shared_gram(updates, owners, num_objectives)))
    slope = jax.grad(gradnorm_loss)(state.logits, norms, losses, first, alpha, here)
    move = here & (clock.epoch > 0)
    logits, opt = _learned.descend(state.logits, slope, state.opt, move, learning_rate)
    weights = here.sum() * _learned.softmax(state.logits, here)
    direction = _shared.combine_shared(weights, updates, owners, here)
    return direction, GradNormState(weights, logits, first_sum, first_count, opt)

  return Aggregator(init_fn, update_fn)


gradnorm = aggregate_by_gradnorm
