"""Cross-entropy with its derivative written down: Optax's, once and twice differentiated, both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import objectives

RNG = np.random.default_rng(0)
CASES = {
  "rows": (RNG.normal(size=(6, 4)), RNG.integers(0, 4, 6)),
  "places": (RNG.normal(size=(2, 3, 2, 5)), RNG.integers(0, 5, (2, 3, 2))),
  "one class": (RNG.normal(size=(3, 1)), np.zeros(3, int)),
  "large": (1e4 * RNG.normal(size=(5, 3)), RNG.integers(0, 3, 5)),
  "equal": (np.full((2, 3), 7.0), np.array([0, 2])),
}


def both(name):
  logits, label = CASES[name]
  z, y = jnp.asarray(logits, jnp.float32), jnp.asarray(label)
  theirs = optax.softmax_cross_entropy_with_integer_labels
  return z, [lambda z, f=f: f(z, y) for f in (objectives.cross_entropy_loss, theirs)]


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_value_and_derivatives_are_those_of_optax(name):
  z, (ours, theirs) = both(name)
  close(ours(z), theirs(z))
  weight = jnp.asarray(RNG.normal(size=ours(z).shape), jnp.float32)
  total = lambda f: lambda z: jnp.sum(weight * f(z))
  close(jax.grad(total(ours))(z), jax.grad(total(theirs))(z))
  step = jnp.asarray(RNG.normal(size=z.shape), jnp.float32)
  close(jax.jvp(ours, (z,), (step,))[1], jax.jvp(theirs, (z,), (step,))[1])
  twice = lambda f: jax.jvp(jax.grad(total(f)), (z,), (step,))[1]
  close(twice(ours), twice(theirs))


def test_a_class_may_be_impossible():
  z = jnp.array([[1.0, -jnp.inf, 2.0]])
  loss = lambda z: objectives.cross_entropy_loss(z, jnp.array([2])).sum()
  close(loss(z), np.log1p(np.exp(-1.0)))
  slope = jax.grad(loss)(z)
  assert float(slope[0, 1]) == 0.0 and np.isfinite(slope).all()


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_told_and_hurts_nobody_who_does_not_read_it(label):
  z, y = jnp.array([[1.0, 2.0], [0.5, 0.0]]), jnp.array([label, 0])
  assert np.isnan(objectives.cross_entropy_loss(z, y)).tolist() == [True, False]

  def read(z):
    return objectives.weighted_mean(objectives.cross_entropy_loss(z, y), jnp.array([0.0, 1.0]))

  loss, slope = jax.value_and_grad(read)(z)
  assert np.isfinite(loss) and np.isfinite(slope).all() and not slope[0].any()
