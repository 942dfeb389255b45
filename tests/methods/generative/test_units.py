"""Values as activations."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.core import Sequence, Unavailable
from mmfuse.methods.generative import mrbm
from mmfuse.methods.generative.mrbm import _units


def test_values_between_0_and_1_stay_and_others_are_mapped_per_channel_and_clipped():
  inputs = {"a": np.array([[0.0, 1.0], [0.25, 0.5]]), "b": np.array([[[0.0, 8.0]], [[2.0, 8.0]]])}
  mask = {"a": np.ones(2, bool), "b": np.ones(2, bool)}
  ranges = mrbm.unit_ranges(inputs, mask)
  new = {"a": jnp.asarray(inputs["a"]), "b": jnp.array([[[1.0, 8.0]], [[5.0, 9.0]]])}
  found = mrbm.to_units(new, {m: jnp.ones(2, bool) for m in "ab"}, ranges)
  np.testing.assert_array_equal(found["a"], inputs["a"])
  # The first channel has mean 1 and deviation 1, the second is constant: -1 to 3, and nothing to say.
  np.testing.assert_allclose(found["b"], [[0.5, 0.0], [1.0, 1.0]])  # [B, 1, 2] is flattened
  np.testing.assert_allclose([ranges["b"]["low"][0], ranges["b"]["high"][0]], [-1.0, 3.0])


def test_absent_rows_are_neither_read_nor_counted():
  x = np.array([[0.0], [4.0], [np.nan]], np.float32)
  there = np.array([True, True, False])
  ranges = mrbm.unit_ranges({"a": x}, {"a": there})
  found = mrbm.to_units({"a": jnp.asarray(x)}, {"a": jnp.asarray(there)}, ranges)
  np.testing.assert_allclose(found["a"], [[0.25], [0.75], [0.0]])
  nobody = mrbm.unit_ranges({"a": x}, {"a": np.zeros(3, bool)})
  assert (float(nobody["a"]["low"][0]), float(nobody["a"]["high"][0])) == (0.0, 1.0)


def test_refusals():
  with pytest.raises(Unavailable, match="'a' holds int32"):
    _units.check_real({"a": jnp.zeros((2, 3), jnp.int32)})
  with pytest.raises(Unavailable, match="'a' is a dict"):
    _units.check_real({"a": {"x": jnp.zeros(2)}})
  with pytest.raises(Unavailable, match="need rows of one length, and those of 'a' have their own"):
    _units.check_real({"a": Sequence(jnp.zeros((2, 3, 1)), jnp.array([3, 1]))})
