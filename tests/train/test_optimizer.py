"""Optimisers whose learning rate is a value of the state; schedules as functions of progress."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import train
from mmfuse.train import SCHEDULES

from ._problems import clock

PARAMS = {"w": jnp.asarray([1.0, -2.0])}
GRADS = {"w": jnp.asarray([0.5, 1.0])}


def run(tx, steps=1, **extra):
  state, params = tx.init(PARAMS), PARAMS
  for _ in range(steps):
    updates, state = tx.update(GRADS, state, params, **extra)
    params = optax.apply_updates(params, updates)
  return params["w"], state


def test_sgd_by_hand():
  # momentum .5: traces g and 1.5 g, rate .1
  found, _ = run(train.sgd(0.1, momentum=0.5), 2, clock=clock())
  np.testing.assert_allclose(found, [1.0 - 0.1 * 0.5 * 2.5, -2.0 - 0.1 * 2.5], rtol=1e-6)
  # coupled decay: g + .1 w = .6, .8
  found, _ = run(train.sgd(0.1, momentum=0.0, weight_decay=0.1), clock=clock())
  np.testing.assert_allclose(found, [1.0 - 0.06, -2.0 - 0.08], rtol=1e-6)


def test_adam_by_hand():
  # The first step is the sign; decoupled decay adds .1 w.
  found, _ = run(train.adam(0.1, weight_decay=0.1), clock=clock())
  np.testing.assert_allclose(found, [1.0 - 0.1 * 1.1, -2.0 - 0.1 * 0.8], rtol=1e-5)


def test_decay_inside_adam_is_part_of_both_moments():
  found, _ = run(train.adam(0.1, weight_decay=0.4, decoupled=False), 2, clock=clock())
  w, m, v = np.asarray(PARAMS["w"], np.float64), np.zeros(2), np.zeros(2)
  for t in (1, 2):
    g = np.asarray(GRADS["w"]) + 0.4 * w  # .9 and .2, then other signs of change
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
  np.testing.assert_allclose(found, w, rtol=1e-5)


# epoch 2 of 10, batch 5 of 10: progress .25
@pytest.mark.parametrize(
  "name, epoch, factor",
  [
    ("constant", 2, 1.0),
    ("cosine", 2, 0.5 * (1 + np.cos(np.pi * 0.25))),
    ("step", 2, 1.0),
    ("step", 7, 0.1),
    ("cosine", 0, 0.5 * (1 + np.cos(np.pi * 0.05))),
  ],
)
def test_schedules_read_progress_off_the_clock(name, epoch, factor):
  now = clock(step=epoch * 10 + 5, epoch=epoch, batch=5, batches=10, epochs=10)
  found, _ = run(train.sgd(0.1, momentum=0.0, schedule=name), clock=now)
  np.testing.assert_allclose(found, PARAMS["w"] - 0.1 * factor * GRADS["w"], rtol=1e-5)
  bare = train.scale_by_progress(SCHEDULES[name])
  updates, _ = bare.update(GRADS, bare.init(PARAMS), clock=now)
  np.testing.assert_allclose(updates["w"], factor * GRADS["w"], rtol=1e-5)


def test_an_unknown_schedule_is_refused():
  with pytest.raises(
    ValueError, match="unknown schedule 'linear'; expected one of: constant, cosine"
  ):
    train.sgd(schedule="linear")


def test_set_learning_rate_writes_every_one_and_nothing_else():
  opt = {"teacher": train.sgd(0.1).init(PARAMS), "student": {"tx": train.adam(0.1).init(PARAMS)}}
  assert train.has_learning_rate(opt)
  new = train.set_learning_rate(opt, 0.5)
  rates = optax.tree.get_all_with_path(new, "learning_rate")
  assert len(rates) == 2 and all(float(rate) == 0.5 for _, rate in rates)
  old = train.set_learning_rate(new, 0.1)
  restored = train.set_learning_rate(opt, 0.1)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), old, restored))
  # A parameter of that name is no learning rate.
  assert not train.has_learning_rate(optax.trace(0.9).init({"learning_rate": jnp.ones(())}))


def test_a_state_without_a_rate_is_refused():
  with pytest.raises(ValueError, match="keeps no learning rate in its state"):
    train.set_learning_rate(optax.sgd(0.1).init(PARAMS), 0.5)


def test_a_rate_is_written_only_where_it_means_the_rate():
  params = {"a": jnp.ones(2), "b": jnp.ones(2)}
  one = train.sgd(0.3).init(params)
  assert train.has_learning_rate(one, 0.3) and not train.has_learning_rate(one, 0.1)
  scheduled = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.3, 0.0, 5)).init(params)
  assert not train.has_learning_rate(scheduled)
  with pytest.raises(ValueError, match="follows a schedule"):
    train.set_learning_rate(scheduled, 0.1)
  groups = optax.partition({"a": train.sgd(0.1), "b": train.sgd(0.2)}, {"a": "a", "b": "b"}).init(
    params
  )
  assert not train.has_learning_rate(groups, 0.1)
  with pytest.raises(ValueError, match=r"several learning rates \(0.1, 0.2\)"):
    train.set_learning_rate(groups, 0.1)


def test_a_rate_that_is_not_searched_is_kept_and_does_not_stand_in_the_way():
  params = {"a": jnp.ones(2), "b": jnp.ones(2)}
  kept = {"sgd": train.sgd(0.2, searched=False), "adam": train.adam(0.2, searched=False)}
  kept["scheduled"] = train.unsearched(
    optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.2, 0.0, 5))
  )
  for name, tx in kept.items():
    groups = optax.partition({"a": train.sgd(0.1), "b": tx}, {"a": "a", "b": "b"})
    opt = groups.init(params)
    assert train.has_learning_rate(opt, 0.1), name
    after = train.set_learning_rate(opt, 0.5)
    updates, _ = groups.update(params, after, params)
    np.testing.assert_allclose(updates["a"], -0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.2, rtol=1e-4, err_msg=name)
  alone = train.sgd(0.2, searched=False).init(params)
  assert not train.has_learning_rate(alone)
  with pytest.raises(ValueError, match="that may be written"):
    train.set_learning_rate(alone, 0.5)
