"""p(x | z) of one modality: Normal, Laplace, Bernoulli, categorical, and what a latent looks like."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import encoders, objectives
from mmfuse.core import Sequence, Unavailable
from mmfuse.names import closest

KINDS = ("normal", "laplace", "bernoulli", "categorical")
SCALED = KINDS[:2]
AUTO = "auto"  # normal for numbers, categorical for tokens


@dataclasses.dataclass(frozen=True)
class Likelihood:
  """log p(x | said) of what a decoder says, summed over everything but rows, in nats."""

  kind: str  # one of `KINDS`
  scale: float = 1.0  # of normal and laplace

  def __str__(self) -> str:
    return f"{self.kind}({self.scale:g})" if self.kind in SCALED else self.kind

  def log_prob(self, said: jax.Array, x: Any) -> jax.Array:
    """said [..., B, *shape] and x [B, *shape] -> [..., B]; steps after a row's end say nothing.

    normal, laplace: `said` is the location. bernoulli: logits of x in [0, 1]. categorical: logits
    over the last axis; x holds whole numbers, of which negative ones say nothing and those from the
    last class on are that class, or shares of one [B, ..., C].
    """
    valid = None
    if isinstance(x, Sequence):
      x, valid = encoders.steps(x)
    extra = said.ndim - x.ndim - int(_tokens(x))
    each = self._each(said.astype(jnp.float32), x.reshape((1,) * extra + x.shape))
    if valid is not None:
      shape = (1,) * extra + valid.shape + (1,) * (each.ndim - extra - valid.ndim)
      each = jnp.where(valid.reshape(shape), each, 0.0)
    return each.sum(tuple(range(extra + 1, each.ndim)))

  def _each(self, said: jax.Array, x: jax.Array) -> jax.Array:
    """Element by element, `x` with as many axes as `said` (tokens: one less)."""
    if self.kind == "categorical":
      if not _tokens(x):
        return jnp.sum(x * jax.nn.log_softmax(said, -1), -1)
      known = jnp.clip(x, 0, said.shape[-1] - 1)
      return jnp.where(x < 0, 0.0, -objectives.cross_entropy_loss(said, known))
    if self.kind == "bernoulli":
      return x * said - jax.nn.softplus(said)
    away = (x - said) / self.scale
    if self.kind == "laplace":
      return -jnp.abs(away) - jnp.log(2 * self.scale)
    return -0.5 * jnp.square(away) - jnp.log(self.scale) - 0.5 * math.log(2 * math.pi)

  def shown(self, said: jax.Array, x: Any) -> jax.Array:
    """What is looked at: the mean, or the most likely token where `x` holds tokens."""
    if self.kind == "bernoulli":
      return jax.nn.sigmoid(said)
    if self.kind != "categorical":
      return said
    values = x.values if isinstance(x, Sequence) else x
    return jnp.argmax(said, -1) if _tokens(values) else jax.nn.softmax(said, -1)


def _tokens(x: Any) -> bool:
  return jnp.issubdtype(x.dtype, jnp.integer)


def parse(spec: str) -> Likelihood:
  """ "normal", "normal:.75", "laplace:.75", "bernoulli", "categorical" -> `Likelihood`.

  Raises ValueError for another word, and for a scale that is none or that there is no place for.
  """
  kind, colon, scale = str(spec).partition(":")
  if kind not in KINDS:
    raise ValueError(f"unknown likelihood {kind!r}; {closest(kind, KINDS)}")
  if not colon:
    return Likelihood(kind)
  try:
    value = float(scale)
  except ValueError:
    value = math.nan
  if kind not in SCALED or not (math.isfinite(value) and value > 0):
    raise ValueError(
      f"a likelihood is {', '.join(KINDS)}, or normal:scale, laplace:scale; got {spec!r}"
    )
  return Likelihood(kind, value)


def likelihood_of(spec: str, m: str, x: Any) -> Likelihood:
  """The likelihood of modality `m`, whose rows are as in `x`.

  Raises Unavailable where it cannot be one of such rows.
  """
  tokens = _tokens(x.values if isinstance(x, Sequence) else x)
  found = parse(("categorical" if tokens else "normal") if spec == AUTO else spec)
  if tokens and found.kind != "categorical":
    raise Unavailable(f"{m!r} holds tokens, whose likelihood is categorical, not {found.kind}")
  return found


def described(specs: dict[str, str]) -> str:
  """ "normal(1)" of all, or "image bernoulli, text categorical"; `specs` {m: spec}."""
  said = {m: spec if spec == AUTO else str(parse(spec)) for m, spec in sorted(specs.items())}
  alike = set(said.values())
  return alike.pop() if len(alike) == 1 else ", ".join(f"{m} {s}" for m, s in said.items())
