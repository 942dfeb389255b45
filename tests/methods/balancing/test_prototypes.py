"""Prototypes, their logits and PMR's coefficients, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.balancing import _prototypes as p

FEATURES = jnp.array([[0.0, 0.0], [2.0, 0.0], [4.0, 4.0], [np.nan, 1.0]])
LABEL = jnp.array([0, 0, 1, 1])
WEIGHT = jnp.array([1.0, 1.0, 1.0, 0.0])


def test_class_means_leave_out_rows_of_weight_zero():
  sums, counts = p.class_sums(FEATURES, LABEL, WEIGHT, 3)
  np.testing.assert_allclose(counts, [2, 1, 0])
  np.testing.assert_allclose(p.prototypes(sums, counts), [[1, 0], [4, 4], [0, 0]])


def test_momentum_and_missing_classes():
  sums, counts = p.class_sums(FEATURES, LABEL, WEIGHT, 3)
  old = jnp.full((3, 2), 10.0)
  new = p.prototypes(sums, counts, old)
  np.testing.assert_allclose(new, [[2.8, 2.0], [5.2, 5.2], [10.0, 10.0]], rtol=1e-6)
  fresh = p.prototypes(sums, counts, old, seen=jnp.array([True, False, False]))
  np.testing.assert_allclose(fresh, [[2.8, 2.0], [4.0, 4.0], [10.0, 10.0]], rtol=1e-6)
  released = np.asarray(p.prototypes(sums, counts, old, variant="released"))
  assert np.isnan(released[2]).all() and np.isfinite(released[:2]).all()


def test_logits_are_minus_distances():
  prototypes = jnp.array([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]])
  got = p.prototype_logits(FEATURES[:2], prototypes)
  np.testing.assert_allclose(got[0], [-5.0, 0.0, -np.sqrt(2)], atol=2e-6)
  seen = p.prototype_logits(FEATURES[:2], prototypes, jnp.array([True, True, False]))
  assert float(jax.nn.softmax(seen)[0, 2]) == 0


def test_a_distance_of_zero_has_a_gradient():
  grad = jax.grad(lambda h: p.prototype_logits(h, jnp.zeros((1, 2))).sum())(jnp.zeros((1, 2)))
  np.testing.assert_array_equal(grad, 0.0)


@pytest.mark.parametrize(
  ("scores", "want"),
  [
    ({"a": 0.2, "b": 0.6}, {"a": 0.5, "b": 0.0}),
    ({"a": 0.6, "b": 0.2}, {"a": 0.0, "b": 0.5}),
    ({"a": 0.4, "b": 0.4}, {"a": 0.0, "b": 0.0}),
    ({"a": 0.4}, {"a": 0.0}),
    ({"a": 0.1, "b": 0.4, "c": 0.9}, {"a": 0.5, "b": 0.5, "c": 0.0}),
  ],
)
def test_who_is_behind_the_mean_of_the_others(scores, want):
  assert {m: float(k) for m, k in p.pmr_coefficients(scores, 0.5).items()} == want


def test_absent_modality_is_no_ones_other():
  present = {"a": True, "b": True, "c": False}
  got = p.pmr_coefficients({"a": 0.3, "b": 0.4, "c": 0.0}, 1.0, present)
  assert [float(got[m]) for m in "abc"] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: p.prototypes(jnp.zeros((1, 1)), jnp.ones(1), momentum=1.0), "momentum"),
    (lambda: p.prototypes(jnp.zeros((1, 1)), jnp.ones(1), variant="x"), "variant"),
    (lambda: p.pmr_coefficients({"a": 0.1}, -1.0), "alpha"),
  ],
)
def test_impossible_numbers(call, message):
  with pytest.raises(ValueError, match=message):
    call()
