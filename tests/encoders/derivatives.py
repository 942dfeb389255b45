"""Whether a gradient that is written down is the derived one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def assert_same_derivatives(ours, plain, given, cotangents):
  """Values, several cotangents at once, and forward over reverse, as rules of gradients ask for them."""

  @functools.partial(jax.jit, static_argnums=0)
  def found(function):
    value, pull = jax.vjp(function, *given)
    total = lambda *given: jnp.square(function(*given)).sum()
    _, product = jax.jvp(jax.grad(total, tuple(range(len(given)))), given, given)
    return value, jax.vmap(pull)(cotangents), product

  for mine, other in zip(*map(jax.tree.leaves, (found(ours), found(plain))), strict=True):
    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(other).max()))
