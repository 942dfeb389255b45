"""A batch as bounds read it: encoders' outputs at random, decoder m is z W_m."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.methods.generative.vae._likelihood import Likelihood
from mmfuse.methods.generative.vae._seen import Seen

ROWS, LATENT, PRIVATE = 6, 3, 2


def seen(number=3, absent=(), private=False, seed=0) -> Seen:
  """`number` modalities of numbers of their own; those in `absent` no row has."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  width = LATENT + (PRIVATE if private else 0)
  mu, lv, x = draw(3, ROWS, LATENT), 0.5 * draw(3, ROWS, LATENT), draw(3, ROWS, 4)
  w, style = draw(3, width, 4), (draw(3, ROWS, PRIVATE), draw(3, ROWS, PRIVATE))
  cross = draw(3, 1, PRIVATE)
  of = Likelihood("normal", 0.7)
  explain = tuple(lambda z, m=m: of.log_prob(z @ w[m], x[m]) for m in range(number))
  present = jnp.asarray([[m not in absent] * ROWS for m in range(number)])
  return Seen(
    mu[:number],
    lv[:number],
    present,
    jnp.ones(ROWS),
    explain,
    private=tuple(s[:number] for s in style) if private else None,
    cross=cross[:number] if private else None,
    still=explain,
  )


def noise(*shape, seed=1):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


KEY = jax.random.key(3)


def compiled(function, *args):
  """One program, hardly optimised: op by op each would be compiled alone."""
  options = {"xla_backend_optimization_level": 0}
  return jax.device_get(jax.jit(function, compiler_options=options)(*args))
