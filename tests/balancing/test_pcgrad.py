"""PCGrad: the closed form of two, the published loop as oracle, order, absent objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing
from mmfuse.balancing._pcgrad import random_order

from ._helpers import apply, conflicting, late_fusion, params_of


def loop(grads, order):
  """The published algorithm on vectors."""
  out = np.zeros(grads.shape[1])
  for i, turns in enumerate(order):
    p = grads[i].astype(np.float64)
    for j in turns:
      product = p @ grads[j]
      if product < 0:
        p = p - product / (grads[j] @ grads[j] + 1e-8) * grads[j]
    out += p
  return out


def test_two_conflicting_gradients():
  direction, state = apply(balancing.pcgrad(2), [[1.0, 0.0], [-1.0, 1.0]])
  # b = -1, a = 1, d = 2: g1 + g2 + g2 / 2 + g1.
  np.testing.assert_allclose(direction, [0.5, 1.5], rtol=1e-6)
  np.testing.assert_allclose(state.weights, [2.0, 1.5], rtol=1e-6)


def test_without_conflict_it_is_the_sum():
  grads = np.abs(conflicting(0, 3))
  direction, state = apply(balancing.pcgrad(3), grads, key=jax.random.key(0))
  np.testing.assert_allclose(direction, grads.sum(0), rtol=1e-6)
  np.testing.assert_array_equal(state.weights, np.ones(3))


@pytest.mark.parametrize("seed", range(3))
def test_coefficient_space_equals_the_loop(seed):
  grads = conflicting(seed, 4)
  order = np.stack([np.random.default_rng(seed + i).permutation(4) for i in range(4)])
  direction, _ = apply(balancing.pcgrad(4), grads, order=order)
  np.testing.assert_allclose(direction, loop(grads, order), rtol=1e-4, atol=1e-5)


def test_drawn_orders_are_independent_permutations():
  orders = jax.vmap(lambda k: random_order(k, 4))(jax.random.split(jax.random.key(0), 50))
  np.testing.assert_array_equal(np.sort(orders, -1), np.broadcast_to(np.arange(4), (50, 4, 4)))
  assert (np.asarray(orders[:, 0]) != np.asarray(orders[:, 1])).any(-1).mean() > 0.8


def test_absent_objectives_neither_project_nor_contribute():
  grads, here = conflicting(0, 3), jnp.array([True, False, True])
  order = np.array([[0, 1, 2], [1, 2, 0], [2, 1, 0]])
  direction, state = apply(balancing.pcgrad(3), grads, order=order, present=here)
  two, _ = apply(balancing.pcgrad(2), grads[[0, 2]])
  np.testing.assert_allclose(direction, two, rtol=1e-5)
  assert state.weights[1] == 0
  mean, _ = apply(balancing.pcgrad(3, rescale="mean"), grads, order=order, present=here)
  np.testing.assert_allclose(mean, two / 2, rtol=1e-5)


def test_an_order_also_holds_inside_a_smaller_group():
  stacked, owners = late_fusion()
  rule = balancing.pcgrad(3, scope="encoder")
  order = np.array([[0, 1, 2], [1, 2, 0], [2, 1, 0]])
  with_order, _ = rule.update(stacked, rule.init(params_of(stacked)), owners=owners, order=order)
  without, _ = rule.update(
    stacked, rule.init(params_of(stacked)), owners=owners, key=jax.random.key(0)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), with_order, without)


def test_three_objectives_need_a_key():
  with pytest.raises(TypeError, match="key="):
    apply(balancing.pcgrad(3), conflicting(0, 3))
  with pytest.raises(ValueError, match="rescale must be one of sum, mean"):
    balancing.pcgrad(3, rescale="none")
