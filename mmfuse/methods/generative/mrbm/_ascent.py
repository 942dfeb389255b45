"""The authors' update rule, its schedules, and its state, which holds the learning rate.

Sohn, Shang, Lee, NIPS 2014: their code.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.core import Clock


class Ascent(NamedTuple):
  """State of the rule; `fit(learning_rate=...)` finds the rate by its name, as in Optax."""

  velocity: Any  # g, like the parameters
  hyperparams: dict[str, jax.Array]  # {"learning_rate": epsilon []}


def init_ascent(params: Any, learning_rate: float) -> Ascent:
  """g = 0."""
  rate = jnp.asarray(learning_rate, jnp.float32)
  return Ascent(jax.tree.map(jnp.zeros_like, params), {"learning_rate": rate})


def rate_of(epoch: jax.Array, rate: float | jax.Array, decay: float) -> jax.Array:
  """epsilon / (1 + decay t), t = epochs done + 1."""
  return rate / (1 + decay * (epoch + 1))


def momentum_of(epoch: jax.Array) -> jax.Array:
  """.33 in the first five epochs, then .47."""
  return jnp.where(epoch < 5, 0.33, 0.47)


def growing(epoch: jax.Array, most: int, every: int) -> jax.Array:
  """min(most, 1 + floor(epochs done / every)): nstop grows every 20 epochs, kcd every 10."""
  return jnp.minimum(most, 1 + epoch // every)


def ascend(
  params: Any, opt: Ascent, gradient: Any, immediate: Any, clock: Clock, decay: float
) -> tuple[Any, Ascent]:
  """g <- mu g + (1 - mu) eps gradient; w <- w + g + eps immediate. A NaN skips the update.

  Returns (parameters, state); `gradient` and `immediate` are trees like the parameters.
  """
  eps = rate_of(clock.epoch, opt.hyperparams["learning_rate"], decay)
  mu = momentum_of(clock.epoch)
  velocity = jax.tree.map(lambda g, d: mu * g + (1 - mu) * eps * d, opt.velocity, gradient)
  moved = jax.tree.map(lambda w, g, d: w + g + eps * d, params, velocity, immediate)
  fine = jnp.stack([jnp.isfinite(w).all() for w in jax.tree.leaves(moved)]).all()
  keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(fine, n, o), new, old)
  return keep(moved, params), opt._replace(velocity=keep(velocity, opt.velocity))
