"""The mean of the uni-modal logits."""

import jax.numpy as jnp
import numpy as np

from mmfuse import fusion
from mmfuse.core import Outputs


def test_the_mean_is_that_of_the_present_modalities():
  values = {"a": jnp.array([[2.0], [2.0], [2.0]]), "b": jnp.array([[6.0], [6.0], [6.0]])}
  mask = {"a": jnp.array([True, True, False]), "b": jnp.array([True, False, False])}
  mean = fusion.mean_logits(Outputs(None, values, {}, {}), mask).logits
  np.testing.assert_allclose(mean, [[4.0], [2.0], [0.0]])
