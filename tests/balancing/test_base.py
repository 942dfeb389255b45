"""Kinds of rules: weightings are aggregators, `chain` fixes the order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import balancing

PARAMS = {"w": jnp.array([1.0, -2.0])}
STACKED = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}


def test_a_weighting_is_an_aggregator_with_weigh():
  rule = balancing.mimo(2, 3.0)
  assert isinstance(rule, balancing.Weighting) and isinstance(rule, balancing.Aggregator)
  assert not isinstance(balancing.mgda(2), balancing.Weighting)
  assert isinstance(rule, optax.GradientTransformationExtraArgs) and rule.after is None
  losses = jnp.ones(2)
  direction, _ = rule.update(STACKED, rule.init(PARAMS), PARAMS, losses=losses)
  weights, _ = rule.weigh(losses, rule.init(PARAMS), PARAMS)
  np.testing.assert_allclose(direction["w"], weights @ STACKED["w"], rtol=1e-6)
  with pytest.raises(TypeError, match="losses"):
    rule.update(STACKED, rule.init(PARAMS), PARAMS)


@pytest.mark.parametrize("link", [balancing.chain, optax.chain])
def test_an_aggregator_opens_a_chain(link):
  tx = link(balancing.mgda(2), optax.sgd(0.1))
  step = jax.jit(lambda g, s: tx.update(g, s, PARAMS, losses=jnp.ones(2)))
  updates, _ = step(STACKED, tx.init(PARAMS))
  np.testing.assert_allclose(updates["w"], [-0.08, -0.04], rtol=1e-5)


def test_chain_passes_extra_arguments_over_plain_links():
  tx = balancing.chain(balancing.uniform(2), optax.scale(0.5), optax.add_decayed_weights(1.0))
  updates, _ = tx.update(STACKED, tx.init(PARAMS), PARAMS, losses=jnp.ones(2), clock=None)
  np.testing.assert_allclose(updates["w"], [1.5, -1.0], rtol=1e-6)


def test_the_order_is_fixed():
  with pytest.raises(TypeError, match="chain starts with an aggregator"):
    balancing.chain(optax.sgd(0.1), balancing.mgda(2))
  with pytest.raises(TypeError, match="link 1 is one too"):
    balancing.chain(balancing.mgda(2), balancing.pcgrad(2))
