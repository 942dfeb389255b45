"""Dropout: Flax's numbers, nothing outside training, and its gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.encoders._dropout import Dropout

X = jnp.arange(1.0, 25.0).reshape(2, 3, 4)
KEY = jax.random.key(3)


class Two(nn.Module):
  flax: bool

  @nn.compact
  def __call__(self, x, *, train: bool):
    for rate in (0.3, 0.6):
      if self.flax:
        x = nn.Dropout(rate, deterministic=not train)(x)
      else:
        x = Dropout(rate)(x, train=train)
    return x


def test_it_drops_what_flax_drops():
  found, want = (Two(f).apply({}, X, train=True, rngs={"dropout": KEY}) for f in (False, True))
  assert 0 < (np.asarray(found) == 0).sum() < X.size
  np.testing.assert_array_equal(found, want)


def test_it_is_nothing_outside_training_and_at_rate_0():
  np.testing.assert_array_equal(Two(False).apply({}, X, train=False), X)
  np.testing.assert_array_equal(Dropout(0.0).apply({}, X, train=True), X)


def test_what_is_dropped_has_no_gradient():
  rngs = {"dropout": KEY}
  run = lambda x: Dropout(0.5).apply({}, x, train=True, rngs=rngs)
  np.testing.assert_array_equal(
    jax.grad(lambda x: run(x).sum())(X), np.where(run(X) == 0, 0.0, 2.0)
  )
