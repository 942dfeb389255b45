"""One entry of an axis a row: the number that indexing gives, and its gradient; the rest is not read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import choose

X = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_it_is_the_entry_and_so_is_its_gradient(axis):
  shape = list(X.shape)
  size = shape.pop(axis)
  index = np.random.default_rng(1).integers(0, size, shape)
  wanted = np.take_along_axis(X, np.expand_dims(index, axis), axis).squeeze(axis)
  found, pull = jax.vjp(lambda x: choose.along(x, jnp.asarray(index), axis), jnp.asarray(X))
  np.testing.assert_array_equal(found, wanted)
  g = np.random.default_rng(2).normal(size=shape).astype(np.float32)
  spread = np.zeros_like(X)
  np.put_along_axis(spread, np.expand_dims(index, axis), np.expand_dims(g, axis), axis)
  np.testing.assert_array_equal(pull(jnp.asarray(g))[0], spread)


def test_an_index_may_be_one_for_several_and_what_it_names_not_may_be_anything():
  hole = np.where(np.arange(4)[None, :, None] == 2, X, np.nan)
  found, pull = jax.vjp(lambda x: choose.along(x, jnp.full((3, 1), 2), 1), jnp.asarray(hole))
  np.testing.assert_array_equal(found, X[:, 2])
  assert np.isfinite(pull(found)[0]).all()


@pytest.mark.parametrize("index", [-1, 5])
def test_what_is_not_on_the_axis_is_zero(index):
  found = choose.along(jnp.asarray(X), jnp.full((3, 4), index), -1)
  np.testing.assert_array_equal(found, np.zeros((3, 4)))


def test_half_precision_stays():
  assert (
    choose.along(jnp.ones((2, 3), jnp.bfloat16), jnp.zeros(2, jnp.int8), 1).dtype == jnp.bfloat16
  )


@pytest.mark.parametrize("kind", [jnp.uint8, jnp.int8, bool])
def test_a_small_kind_of_index_does_not_count_from_zero_again(kind):
  x = jnp.arange(1.0, 301.0)[None]
  np.testing.assert_array_equal(choose.along(x, jnp.array([1], kind), 1), [2.0])
