"""The uniform sum."""

import jax.numpy as jnp
import numpy as np

from mmfuse import balancing

from ._helpers import apply

GRADS = np.array([[1.0, 2.0], [3.0, -1.0], [5.0, 5.0]])


def test_sum_mean_and_absent():
  direction, _ = apply(balancing.uniform(3), GRADS, losses=jnp.ones(3))
  np.testing.assert_array_equal(direction, [9, 6])
  direction, _ = apply(balancing.uniform(3, mean=True), GRADS, losses=jnp.ones(3))
  np.testing.assert_allclose(direction, [3, 2], rtol=1e-6)
  here = jnp.array([True, True, False])
  direction, state = apply(balancing.uniform(3, mean=True), GRADS, losses=jnp.ones(3), present=here)
  np.testing.assert_allclose(direction, [2, 0.5], rtol=1e-6)
  np.testing.assert_array_equal(state.weights, [0.5, 0.5, 0])
