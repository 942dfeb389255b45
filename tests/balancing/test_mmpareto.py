"""MMPareto: closed forms per encoder, norms, heads, absent objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing, tree

from ._helpers import late_fusion, params_of


def encoder(fused, own, **options):
  """Direction of one encoder with one tensor, K = 2."""
  stacked = {"a": jnp.asarray([fused, own], jnp.float32)}
  present = options.pop("present", None)
  rule = balancing.mmpareto(2, modalities=("a",), **options)
  direction, state = rule.update(stacked, rule.init(params_of(stacked)), present=present)
  return np.asarray(direction["a"]), state


def test_without_conflict_it_is_gamma_times_the_sum():
  direction, state = encoder([1.0, 0.0], [1.0, 2.0])
  np.testing.assert_allclose(direction, [3.0, 3.0], rtol=1e-6)
  np.testing.assert_allclose(state.weights, [0.5, 0.5], rtol=1e-6)
  np.testing.assert_allclose(state.cosines[1], 1 / np.sqrt(5), rtol=1e-6)


def test_conflict_takes_the_min_norm_weights_and_the_norm_of_the_sum():
  fused, own = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
  k0 = (2.0 + 1.0) / (1.0 + 2.0 + 2.0)  # (d - b) / (a + d - 2b)
  n = 2 * k0 * fused + 2 * (1 - k0) * own
  factor = max(np.linalg.norm(fused + own) / np.linalg.norm(n), 1.0)
  direction, state = encoder(fused, own, gamma=2.0)
  np.testing.assert_allclose(direction, 2.0 * n * factor, rtol=1e-5)
  np.testing.assert_allclose(state.weights, [k0, 1 - k0], rtol=1e-5)


def test_a_zero_gradient_leaves_gamma_times_the_other():
  np.testing.assert_allclose(encoder([0.0, 0.0], [1.0, 2.0])[0], [1.5, 3.0], rtol=1e-4)
  np.testing.assert_allclose(encoder([1.0, 2.0], [0.0, 0.0])[0], [1.5, 3.0], rtol=1e-4)
  np.testing.assert_array_equal(encoder([0.0, 0.0], [0.0, 0.0])[0], [0.0, 0.0])


def test_opposite_gradients_cancel_without_nan():
  direction, _ = encoder([1.0, 2.0], [-1.0, -2.0])
  np.testing.assert_allclose(direction, [0.0, 0.0], atol=1e-6)


def test_an_absent_objective_counts_as_zero():
  direction, state = encoder([1.0, 2.0], [5.0, -3.0], present=jnp.array([True, False]))
  np.testing.assert_allclose(direction, [1.5, 3.0], rtol=1e-4)
  np.testing.assert_array_equal(state.weights, [1.0, 0.0])


def conflict():
  """One encoder of two tensors: the first conflicts, the second agrees, the whole conflicts."""
  return {"a": {"x": jnp.array([[3.0, 0.0], [-3.0, 1.0]]), "y": jnp.array([[1.0], [1.0]])}}


def test_norms_per_tensor_or_per_encoder():
  stacked = conflict()
  a = tree.gram(stacked)
  k0 = float((a[1, 1] - a[0, 1]) / (a[0, 0] + a[1, 1] - 2 * a[0, 1]))
  assert float(a[0, 1]) < 0
  mixed = jax.tree.map(lambda g: np.asarray(2 * k0 * g[0] + 2 * (1 - k0) * g[1]), stacked["a"])
  plain = jax.tree.map(lambda g: np.asarray(g.sum(0)), stacked["a"])

  def factor(n, p):
    return max(np.linalg.norm(p) / np.linalg.norm(n), 1.0)

  whole = factor(np.concatenate([mixed["x"], mixed["y"]]), np.concatenate([plain["x"], plain["y"]]))
  for rescale in ("tensor", "encoder"):
    rule = balancing.mmpareto(2, modalities=("a",), rescale=rescale)
    direction, _ = rule.update(stacked, rule.init(params_of(stacked)))
    for leaf in ("x", "y"):
      f = factor(mixed[leaf], plain[leaf]) if rescale == "tensor" else whole
      np.testing.assert_allclose(direction["a"][leaf], 1.5 * f * mixed[leaf], rtol=1e-4)


def test_heads_and_shared_leaves_get_the_plain_sum():
  stacked, owners = late_fusion()
  stacked["trunk"] = jnp.arange(6.0).reshape(3, 2)
  owners["trunk"] = tree.Owner(None, "shared", (0, 1, 2))
  rule = balancing.mmpareto(3)
  direction, state = rule.update(stacked, rule.init(params_of(stacked)), owners=owners)
  np.testing.assert_allclose(direction["trunk"], stacked["trunk"].sum(0), rtol=1e-6)
  for name, row in (("audio", 1), ("image", 2), ("fused", 0)):
    np.testing.assert_array_equal(direction["heads"][name], stacked["heads"][name][row])
  alone = balancing.mmpareto(3, modalities=("audio", "image"))
  again, _ = alone.update(stacked, alone.init(params_of(stacked)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), again, direction)
  np.testing.assert_allclose(
    state.weights[0], 1 - (state.weights[1] + state.weights[2]) / 2, rtol=1e-5
  )


def test_what_is_missing_or_wrong_is_named():
  stacked, _ = late_fusion()
  rule = balancing.mmpareto(3)
  with pytest.raises(ValueError, match=r"modalities=\('audio', ...\)"):
    rule.update(stacked, rule.init(params_of(stacked)))
  with pytest.raises(ValueError, match="1 fused and 2 modalities; got the modalities a, b, c"):
    balancing.mmpareto(3, modalities=("a", "b", "c"))
  with pytest.raises(ValueError, match="gamma must be positive"):
    balancing.mmpareto(3, 0.0)
