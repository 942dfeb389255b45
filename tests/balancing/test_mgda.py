"""MGDA: descent for all, normalisations, scopes, heads, absent objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing, tree
from mmfuse.balancing import _min_norm

from ._helpers import apply, conflicting, late_fusion, params_of


def test_two_orthogonal_gradients():
  direction, state = apply(balancing.mgda(2), [[2.0, 0.0], [0.0, 1.0]])
  np.testing.assert_allclose(direction, [0.4, 0.8], rtol=1e-6)
  np.testing.assert_allclose(state.weights, [0.2, 0.8], rtol=1e-6)


@pytest.mark.parametrize("num", [2, 3, 4])
def test_descent_for_every_objective(num):
  grads = conflicting(num, num)
  direction, state = apply(balancing.mgda(num), grads)
  assert (grads @ direction >= direction @ direction - 1e-4).all()
  np.testing.assert_allclose(state.weights.sum(), 1.0, rtol=1e-5)
  order = np.arange(num)[::-1]
  np.testing.assert_allclose(apply(balancing.mgda(num), grads[order])[0], direction, atol=1e-4)


def test_normalised_gradients_are_the_ones_combined():
  grads, losses = conflicting(0, 3), jnp.array([0.5, 1.0, 2.0])
  norms = np.linalg.norm(grads, axis=1)
  for normalize, scale in (("l2", norms), ("loss", losses), ("loss+", losses * norms)):
    got, _ = apply(balancing.mgda(3, normalize=normalize), grads, losses=losses)
    want, _ = apply(balancing.mgda(3), grads / np.asarray(scale)[:, None])
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_rescale_sum_multiplies_by_the_present():
  grads, here = conflicting(0, 3), jnp.array([True, True, False])
  plain, _ = apply(balancing.mgda(3), grads, present=here)
  summed, _ = apply(balancing.mgda(3, rescale="sum"), grads, present=here)
  np.testing.assert_allclose(summed, 2 * plain, rtol=1e-5)
  two, _ = apply(balancing.mgda(2), grads[:2])
  np.testing.assert_allclose(plain, two, atol=1e-5)


def test_identical_gradients_come_back():
  grads = np.tile(conflicting(0, 1), (3, 1))
  np.testing.assert_allclose(apply(balancing.mgda(3), grads)[0], grads[0], rtol=1e-5)


def test_a_zero_gradient_stops():
  grads = conflicting(0, 3)
  grads[1] = 0
  np.testing.assert_allclose(apply(balancing.mgda(3), grads)[0], np.zeros(6), atol=1e-3)


def test_heads_keep_their_gradient_and_stay_out_of_the_gram():
  stacked, owners = late_fusion()
  rule = balancing.mgda(3)
  direction, state = rule.update(stacked, rule.init(params_of(stacked)), owners=owners)
  for name, row in (("audio", 1), ("image", 2), ("fused", 0)):
    np.testing.assert_array_equal(direction["heads"][name], stacked["heads"][name][row])
  encoders = {m: stacked[m] for m in ("audio", "image")}
  want = _min_norm.min_norm(tree.gram(encoders))
  np.testing.assert_allclose(state.weights, want, atol=1e-5)
  combined = tree.combine(want, encoders)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    {m: direction[m] for m in encoders},
    combined,
  )


def test_scope_encoder_solves_each_encoder_alone():
  stacked, owners = late_fusion()
  rule = balancing.mgda(3, scope="encoder")
  direction, _ = rule.update(stacked, rule.init(params_of(stacked)), owners=owners)
  for m, row in (("audio", 1), ("image", 2)):
    pair = jax.tree.map(lambda g, row=row: g[jnp.array([0, row])], stacked[m])
    want = tree.combine(_min_norm.min_norm(tree.gram(pair)), pair)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), direction[m], want)
  unowned = jax.tree.map(lambda l: tree.Owner(l.modality, l.part), owners)
  again, _ = rule.update(stacked, rule.init(params_of(stacked)), owners=unowned)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), again, direction)


def test_quadratics_end_on_the_pareto_set():
  """Minima (0, 0) and (1, 0): the Pareto set is the segment between them."""
  centres, scales = jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([[1.0], [3.0]])
  rule = balancing.mgda(2)

  def step(x, _):
    direction, _ = rule.update({"x": scales * (x[None] - centres)}, rule.init({"x": x}))
    return x - 0.1 * direction["x"], None

  x, _ = jax.lax.scan(step, jnp.array([0.5, 2.0]), length=200)
  assert abs(float(x[1])) < 1e-2 and -1e-2 < float(x[0]) < 1.01


def test_what_is_missing_or_wrong_is_named():
  with pytest.raises(TypeError, match=r"losses=\[K\]"):
    apply(balancing.mgda(2, normalize="loss"), conflicting(0, 2))
  with pytest.raises(ValueError, match="normalize must be one of none, l2, loss, loss"):
    balancing.mgda(2, normalize="L2")
  with pytest.raises(ValueError, match=r"made for 3 objectives .* shape \[2, 6\]"):
    apply(balancing.mgda(3), conflicting(0, 2))
  with pytest.raises(ValueError, match="scope='encoder' must know the encoders"):
    apply(balancing.mgda(2, scope="encoder"), conflicting(0, 2))
