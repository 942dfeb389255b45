"""Draws as one vector: the numbers of the draw of that shape; leaves cut from one draw, none twice."""

import jax
import numpy as np
import pytest

from mmfuse import draws

KEY = jax.random.key(0)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 2, 2), (3, 0)])
def test_a_flat_draw_has_the_numbers_of_its_shape(shape):
  for draw, options in (
    (jax.random.normal, {}),
    (jax.random.uniform, {"minval": -1.0, "maxval": 2.0}),
    (jax.random.bernoulli, {"p": 0.3}),
    (jax.random.bits, {}),
  ):
    found = draws.flat(draw, KEY, shape, **options)
    np.testing.assert_array_equal(found, draw(KEY, shape=shape, **options))


def test_a_flat_draw_of_stacked_keys_has_the_numbers_of_each():
  keys = jax.random.split(KEY, 3)
  found = jax.vmap(lambda k: draws.flat(jax.random.normal, k, (2, 3)))(keys)
  np.testing.assert_array_equal(found, [jax.random.normal(k, (2, 3)) for k in keys])


def test_leaves_are_one_vector_cut_in_order():
  shapes = [(2, 3), (), (4,), (1, 2, 2)]
  leaves = draws.split(jax.random.uniform, KEY, shapes)
  assert [x.shape for x in leaves] == shapes
  flat = np.concatenate([np.ravel(x) for x in leaves])
  np.testing.assert_array_equal(flat, jax.random.uniform(KEY, (15,)))
  assert len(set(flat.tolist())) == 15


def test_rows_do_not_depend_on_how_many_there_are():
  few, many = (draws.rows_first(jax.random.normal, KEY, (2, 3), n, 4) for n in (5, 7))
  assert few.shape == (2, 3, 5, 4)
  np.testing.assert_array_equal(few, many[:, :, :5])
