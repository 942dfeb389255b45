"""AMCo's schedule, masks and shares by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.balancing import _amco_masks


@pytest.mark.parametrize("l, want", [(0.0, 0.0), (0.1, 0.5), (0.3, 1.0), (7.0, 1.0)])
def test_ratio(l, want):
  # sin(pi/6) = 1/2 at a third of eps
  ratio = _amco_masks.amco_ratio(jnp.float32(l))
  np.testing.assert_allclose(ratio, want, atol=1e-6)
  assert int(_amco_masks.num_masked(ratio, 10)) == int(10 * want)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_mask_hides_so_many_classes(count):
  masks = [_amco_masks.class_mask(jax.random.key(s), jnp.int32(count), 5) for s in range(8)]
  assert all(int((~m).sum()) == count for m in masks)
  if count == 2:
    assert len({tuple(m.tolist()) for m in masks}) > 1


def test_shares_of_one_softmax():
  # exp sums: a: 3 + 1, b: 1 + 1 -> 2/3, 1/3; row 1 has a alone.
  logits = {"b": jnp.zeros((2, 2)), "a": jnp.asarray([[np.log(3.0), 0.0], [0.0, 0.0]])}
  mask = {"a": jnp.asarray([True, True]), "b": jnp.asarray([True, False])}
  np.testing.assert_allclose(
    _amco_masks.modality_shares(logits, mask, jnp.ones(2)), [(2 / 3 + 1) / 2, 1 / 6], rtol=1e-5
  )
  weight = jnp.asarray([1.0, 0.0])
  np.testing.assert_allclose(
    _amco_masks.modality_shares(logits, mask, weight), [2 / 3, 1 / 3], rtol=1e-5
  )
  nobody = {m: jnp.zeros(2, bool) for m in mask}
  np.testing.assert_array_equal(_amco_masks.modality_shares(logits, nobody, weight), [0.0, 0.0])
