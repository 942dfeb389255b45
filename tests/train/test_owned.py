"""An optimiser of some leaves: the others neither move nor decay, and nothing is kept of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import objectives, train, tree
from mmfuse.train import _owned

from . import _problems

PARAMS = {"a": {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([1.0])}, "heads": jnp.ones(2)}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)


def is_bias(path):
  return path.endswith("bias")


def test_owned_and_graft_are_inverse():
  mine = _owned.owned(PARAMS, is_bias)
  assert [x.tolist() for x in jax.tree.leaves(mine)] == [[1.0]]
  grafted = _owned.graft(PARAMS, jax.tree.map(lambda x: x + 1, mine))
  assert grafted["a"]["bias"].tolist() == [2.0]
  assert grafted["a"]["kernel"] is PARAMS["a"]["kernel"] and grafted["heads"] is PARAMS["heads"]


@pytest.mark.parametrize(
  "tx",
  [train.sgd(0.1, weight_decay=0.5), train.adam(0.1, weight_decay=0.5), optax.adamw(0.1)],
  ids=["sgd", "adam", "adamw"],
)
def test_decay_and_momentum_reach_only_what_moves(tx):
  moving = train.moving_only(tx, is_bias)
  state, params = moving.init(PARAMS), PARAMS
  assert sum(x.size for x in jax.tree.leaves(state)) <= 5  # two moments, two counts, a rate
  for _ in range(2):
    updates, state = moving.update(GRADS, state, params)
    params = optax.apply_updates(params, updates)
  np.testing.assert_array_equal(params["a"]["kernel"], PARAMS["a"]["kernel"])
  np.testing.assert_array_equal(params["heads"], PARAMS["heads"])
  alone, bias = tx.init(PARAMS["a"]["bias"]), PARAMS["a"]["bias"]
  for _ in range(2):
    step, alone = tx.update(jnp.ones(1), alone, bias)
    bias = bias + step
  np.testing.assert_allclose(params["a"]["bias"], bias, rtol=1e-6)


def test_a_norm_is_over_what_moves_and_owners_come_along():
  seen = {}

  def look(updates, state, params=None, *, owners, **extra):
    seen.update(owners=owners, updates=updates)
    return updates, state

  tx = optax.chain(
    optax.clip_by_global_norm(0.5),
    optax.GradientTransformationExtraArgs(optax.init_empty_state, look),
  )
  moving = train.moving_only(tx, is_bias)
  owners = tree.owners_of(PARAMS, ("a",))
  updates, _ = moving.update(GRADS, moving.init(PARAMS), PARAMS, owners=owners)
  assert float(updates["a"]["bias"][0]) == pytest.approx(0.5)
  assert jax.tree.leaves(seen["owners"]) == [tree.Owner("a", "encoder")]
  assert jax.tree.structure(seen["updates"]) == jax.tree.structure(seen["owners"])


def test_a_rate_is_found_and_written():
  moving = train.moving_only(train.sgd(0.1), is_bias)
  state = moving.init(PARAMS)
  assert train.has_learning_rate(state, 0.1)
  updates, _ = moving.update(GRADS, train.set_learning_rate(state, 0.5), PARAMS)
  assert float(updates["a"]["bias"][0]) == pytest.approx(-0.5)


def test_in_a_step_only_what_is_owned_moves():
  method = train.supervised(
    _problems.late_fusion(),
    objectives.fused_and_unimodal,
    train.moving_only(train.sgd(0.1, weight_decay=0.1), is_bias),
  )
  before, after, _ = _problems.one_step(method, _problems.batch())
  for (path, x), y in zip(jax.tree.leaves_with_path(before.params), jax.tree.leaves(after.params)):
    assert np.array_equal(x, y) != is_bias(_owned.path_of(path)), path
