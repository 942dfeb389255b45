"""Cosine fusion by hand, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.fusion._cosine import Cosine, cosine_logits

FEATURES = {"b": jnp.asarray([[0.0, 2.0]]), "a": jnp.asarray([[3.0, 4.0]])}
# Rows of a, then of b; columns are classes.
KERNEL = jnp.asarray([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [1.0, 0.0]])


def test_logits_by_hand():
  found = cosine_logits(FEATURES, KERNEL, 10.0)
  np.testing.assert_allclose(found["a"], [[6.0, 8.0]], rtol=1e-6)
  np.testing.assert_allclose(found["b"], [[10 / np.sqrt(2), 0.0]], rtol=1e-6)


def test_scale_of_features_and_weights_does_not_matter():
  found = cosine_logits({m: 7.0 * h for m, h in FEATURES.items()}, 3.0 * KERNEL)
  for m, z in cosine_logits(FEATURES, KERNEL).items():
    np.testing.assert_allclose(found[m], z, rtol=1e-6)


def test_zero_features_give_zero_logits_and_no_gradient():
  silent = {**FEATURES, "b": jnp.zeros((1, 2))}
  np.testing.assert_array_equal(cosine_logits(silent, KERNEL)["b"], 0.0)
  grads = jax.grad(lambda f, k: sum(cosine_logits(f, k).values()).sum(), (0, 1))(silent, KERNEL)
  np.testing.assert_array_equal(grads[0]["b"], 0.0)
  np.testing.assert_array_equal(grads[1][2:], 0.0)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("num", [1, 2, 3])
def test_module_sums_its_split_in_sorted_order(num):
  features = {m: jnp.arange(1.0, 5.0).reshape(2, 2) + i for i, m in enumerate("cab"[:num])}
  mask = {m: jnp.ones(2, bool) for m in features}
  (logits, split), variables = Cosine(2.0).init_with_output(
    jax.random.key(0), features, mask, num_classes=3, train=False
  )
  kernel = variables["params"]["kernel"]
  assert kernel.shape == (2 * num, 3) and set(variables["params"]) == {"kernel"}
  np.testing.assert_allclose(logits, sum(split.values()), rtol=1e-6)
  for m, z in cosine_logits(features, kernel, 2.0).items():
    np.testing.assert_allclose(split[m], z, rtol=1e-6)
  assert float(jnp.abs(logits).max()) <= 2.0 * num


def test_wrong_kernel_is_refused():
  with pytest.raises(ValueError, match=r"has 4 rows, but the features .* need 2"):
    cosine_logits({"a": FEATURES["a"]}, KERNEL)
