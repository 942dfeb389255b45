"""One draw for many leaves: their shapes, one vector cut in order, nothing drawn twice."""

import jax
import numpy as np

from mmfuse.balancing._split_draw import split_draw


def test_leaves_are_one_vector_cut_in_order():
  shapes = [(2, 3), (), (4,), (1, 2, 2)]
  leaves = split_draw(jax.random.uniform, jax.random.key(0), shapes)
  assert [x.shape for x in leaves] == shapes
  flat = np.concatenate([np.ravel(x) for x in leaves])
  np.testing.assert_array_equal(flat, jax.random.uniform(jax.random.key(0), (15,)))
  assert len(set(flat.tolist())) == 15
