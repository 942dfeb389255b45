"""What a posterior is made of: Normal and Laplace, by a location and a raw scale, from given noise."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmfuse.methods.generative.vae._gaussian import kl_between
from mmfuse.names import closest

LEAST_SCALE = 1e-6  # of a Laplace, the authors'


@dataclasses.dataclass(frozen=True)
class Family:
  """Distributions of one form over [..., L]; `raw` is what an encoder gives beside the location."""

  name: str  # "normal" or "laplace"
  scale: Callable[[jax.Array], jax.Array]  # raw [..., L] -> scale [..., L]
  moved: Callable[..., jax.Array]  # (loc, raw, noise) -> a draw, all [..., L]
  noise: Callable[..., jax.Array]  # (key, shape) -> what `moved` takes
  log_prob: Callable[..., jax.Array]  # (z, loc, raw) -> [...]
  kl: Callable[..., jax.Array]  # (loc, raw, raw of the prior, whose location is 0) -> [...]


def _log_normal(z: jax.Array, loc: jax.Array, raw: jax.Array) -> jax.Array:
  """log N(z; loc, exp raw) summed over the last axis; raw is a log variance."""
  squares = jnp.square(z - loc) * jnp.exp(-raw)
  return -0.5 * jnp.sum(raw + math.log(2 * math.pi) + squares, -1)


def _laplace_scale(raw: jax.Array) -> jax.Array:
  return jax.nn.softmax(raw, -1) * raw.shape[-1] + LEAST_SCALE


def _log_laplace(z: jax.Array, loc: jax.Array, raw: jax.Array) -> jax.Array:
  scale = _laplace_scale(raw)
  return -jnp.sum(jnp.log(2 * scale) + jnp.abs(z - loc) / scale, -1)


def _laplace_moved(loc: jax.Array, raw: jax.Array, noise: jax.Array) -> jax.Array:
  """The inverse of its distribution function; noise is uniform in (-1, 1)."""
  return loc - _laplace_scale(raw) * jnp.sign(noise) * jnp.log1p(-jnp.abs(noise))


def _laplace_kl(loc: jax.Array, raw: jax.Array, prior: jax.Array) -> jax.Array:
  scale, other = _laplace_scale(raw), _laplace_scale(prior)
  away = jnp.abs(loc)
  ratio = scale / other
  return jnp.sum(away / other + ratio * jnp.exp(-away / scale) - 1.0 - jnp.log(ratio), -1)


def _normal_kl(loc: jax.Array, raw: jax.Array, prior: jax.Array) -> jax.Array:
  return kl_between(loc, raw, jnp.zeros_like(loc), jnp.broadcast_to(prior, loc.shape))


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  return jax.random.uniform(key, shape, minval=-1.0 + 1e-6, maxval=1.0 - 1e-6)


FAMILIES = {
  f.name: f
  for f in (
    Family(
      "normal",
      lambda raw: jnp.exp(0.5 * raw),
      lambda loc, raw, noise: loc + jnp.exp(0.5 * raw) * noise,
      jax.random.normal,
      _log_normal,
      _normal_kl,
    ),
    Family("laplace", _laplace_scale, _laplace_moved, _uniform, _log_laplace, _laplace_kl),
  )
}


def family_of(name: str) -> Family:
  """The family called `name`. Raises ValueError for an unknown one."""
  if name not in FAMILIES:
    raise ValueError(f"unknown family of posteriors {name!r}; {closest(str(name), FAMILIES)}")
  return FAMILIES[name]
