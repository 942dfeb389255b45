"""Weights that a rule remembers: shares on the simplex, learned logits; the absent stay put."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing._min_norm import project_simplex

_B1, _B2 = 0.9, 0.999


def among(shares: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(shares [K] of the present objectives, summing to 1; their mass); uniform if it is 0."""
  mass = jnp.sum(jnp.where(present, shares, 0.0))
  uniform = present / jnp.maximum(present.sum(), 1)
  ratio = jnp.where(present, shares, 0.0) / jnp.where(mass > 0, mass, 1.0)
  return jnp.where(mass > 0, ratio, uniform).astype(jnp.float32), mass


def decide_among(
  rule: Callable[[jax.Array, jax.Array], jax.Array],
  shares: jax.Array,
  present: jax.Array,
  seen: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """(shares [K] of the present objectives, the shares to remember).

  `rule(shares, seen)` maps shares that sum to 1 over `seen` to new ones; present objectives that
  are not seen keep theirs, as the absent do.
  """
  here, mass = among(shares, present)
  seen = seen & present
  start, part = among(here, seen)
  here = back(rule(start, seen), part, here, seen)
  return here, back(here, mass, shares, present)


def back(new: jax.Array, mass: jax.Array, old: jax.Array, present: jax.Array) -> jax.Array:
  """The shares [K] to remember: the present ones divide their mass anew, the absent keep theirs."""
  return jnp.where(present, mass * new, old)


def softmax(logits: jax.Array, present: jax.Array) -> jax.Array:
  """Softmax [K] over the present objectives, 0 for the others."""
  top = jnp.max(jnp.where(present, logits, -jnp.inf))
  top = jax.lax.stop_gradient(jnp.where(present.any(), top, 0.0))
  raw = jnp.where(present, jnp.exp(jnp.where(present, logits - top, 0.0)), 0.0)
  return raw / jnp.where(present.any(), raw.sum(), 1.0)


def project(point: jax.Array, present: jax.Array) -> jax.Array:
  """Euclidean projection [K] onto the simplex over the present objectives."""
  # The projection ignores a common shift; with the maximum at 0, huge entries lose no digits.
  top = jnp.where(present.any(), jnp.max(jnp.where(present, point, -jnp.inf)), 0.0)
  return jnp.where(present, project_simplex(jnp.where(present, point - top, -1e9)), 0.0)


class Adam(NamedTuple):
  """Moments of each logit, with its own count: an absent objective's are those of its own steps."""

  mean: jax.Array  # [K]
  square: jax.Array  # [K]
  steps: jax.Array  # int32 [K]


def init_adam(num: int) -> Adam:
  """Moments of K logits that have not moved yet."""
  zeros = jnp.zeros(num, jnp.float32)
  return Adam(zeros, zeros, jnp.zeros(num, jnp.int32))


def descend(
  logits: jax.Array,
  slope: jax.Array,
  opt: Adam,
  move: jax.Array,
  learning_rate: float,
  weight_decay: float = 0.0,
) -> tuple[jax.Array, Adam]:
  r"""Adam on [K] where `move`: s -= learning_rate m / (sqrt(v) + 1e-8), decay added to the slope.

  Elsewhere neither logit nor moments change.
  """
  slope = slope + weight_decay * logits
  steps = opt.steps + 1
  mean = opt.mean + (1.0 - _B1) * (slope - opt.mean)
  square = opt.square + (1.0 - _B2) * (slope**2 - opt.square)
  # 1 - b^t by expm1: the plain difference is off by 1e-5 of itself in float32, at every early step.
  m, v = (x / -jnp.expm1(steps * math.log(b)) for x, b in ((mean, _B1), (square, _B2)))
  moved = logits - learning_rate * m / (jnp.sqrt(v) + 1e-8)
  keep = lambda new, old: jnp.where(move, new, old)
  return keep(moved, logits), jax.tree.map(keep, Adam(mean, square, steps), opt)


def check_rate(name: str, value: float) -> None:
  """`value` >= 0, or a sentence."""
  if not value >= 0:
    raise ValueError(f"{name} must be at least 0, got {value}")


def check_max_weight(value: float) -> None:
  """`value` > 0 (inf = no bound), or a sentence."""
  if not value > 0:
    raise ValueError(f"max_weight must be positive, got {value}")
