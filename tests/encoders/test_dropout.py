"""Dropout: Flax's numbers, nothing outside training, and its gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_rate_1_leaves_zeros_and_no_gradient():
  run = lambda x: Dropout(1.0).apply({}, x, train=True, rngs={"dropout": KEY})
  assert not run(X).any()
  np.testing.assert_array_equal(jax.grad(lambda x: run(x).sum())(X), jnp.zeros_like(X))


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_that_is_no_probability_is_refused(rate):
  with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\], got"):
    Dropout(rate).apply({}, X, train=False)


def test_what_is_dropped_has_no_gradient():
  rngs = {"dropout": KEY}
  run = lambda x: Dropout(0.5).apply({}, x, train=True, rngs=rngs)
  np.testing.assert_array_equal(
    jax.grad(lambda x: run(x).sum())(X), np.where(run(X) == 0, 0.0, 2.0)
  )
