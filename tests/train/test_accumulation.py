"""Who is moved by an optimiser that waits, and by a batch in which nobody has a label."""

import jax
import numpy as np
import optax
import pytest

from mmfuse import objectives, train, tree

from ._problems import batch, clock, compiled, gradient, late_fusion

MODEL = late_fusion(2, "none", 0.0)
WITH, WITHOUT = batch(seed=1), batch(seed=2, absent=("b",))


def after(tx, batches):
  """Parameters before, and after each step."""
  method = train.supervised(MODEL, objectives.fused_and_unimodal, tx)
  state = train.initial(method, jax.random.key(0), batches[0])
  step, found = compiled(method.phases[0].step), [state.params]
  for i, given in enumerate(batches):
    state, log = step(state, given, jax.random.key(1), clock(i))
    assert bool(log["finite"])
    found.append(state.params)
  return found


def moved(a, b, part):
  return jax.tree.map(lambda x, y: np.asarray(y - x), a[part], b[part])


def largest(tree):
  return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


WAITING = {
  # the mean of two gradients, and the sum of two updates
  "multi_steps": (lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(), 0.5),
  "apply_every": (lambda tx: optax.chain(tx, optax.apply_every(2)), 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize("order", [(WITH, WITHOUT), (WITHOUT, WITH)])
def test_a_modality_of_one_of_two_batches_moves_by_its_gradient(name, order):
  wait, share = WAITING[name]
  start, first, second = after(wait(optax.sgd(1.0)), order)
  assert largest(moved(start, first, "a")) == largest(moved(start, first, "b")) == 0.0
  method = train.supervised(MODEL, objectives.fused_and_unimodal, train.sgd(1.0, momentum=0.0))
  wanted = jax.tree.map(lambda g: -share * g, gradient(method, WITH)["b"])
  assert largest(wanted) > 1e-3
  for got, want in zip(*map(jax.tree.leaves, (moved(start, second, "b"), wanted))):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_part_of_the_parameters_may_wait():
  waiting = optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation()
  owners = {"a": optax.sgd(1.0), "b": waiting, "shared": optax.sgd(1.0)}
  whose = lambda params: jax.tree.map(
    lambda o: o.modality or "shared", tree.owners_of(params, ("a", "b"))
  )
  tx = optax.partition(owners, whose)
  start, first, second = after(tx, (WITH, WITHOUT))
  assert largest(moved(start, first, "a")) > 0 and largest(moved(start, first, "b")) == 0
  assert largest(moved(first, second, "b")) > 1e-3


@pytest.mark.parametrize("name", WAITING)
def test_momentum_does_not_move_what_no_batch_since_the_last_update_had(name):
  wait, _ = WAITING[name]
  params = after(wait(optax.sgd(0.1, momentum=0.9)), (WITH, WITH, WITHOUT, WITHOUT, WITH, WITH))
  assert largest(moved(params[0], params[2], "b")) > 0
  assert largest(moved(params[2], params[4], "b")) == 0
  assert largest(moved(params[2], params[4], "a")) > 0
  assert largest(moved(params[4], params[6], "b")) > 0


def test_a_batch_without_a_label_moves_nothing():
  unknown = WITH._replace(labelled=np.zeros(8, bool))
  known = WITH._replace(labelled=np.ones(8, bool))
  params = after(train.sgd(0.1, weight_decay=0.1), (known, unknown, known))
  assert max(largest(moved(params[1], params[2], k)) for k in params[0]) == 0
  assert min(largest(moved(params[2], params[3], k)) for k in params[0]) > 0


def test_what_reads_no_label_learns_from_such_a_batch():
  def spread(outputs, given, **extra):
    return {"spread": objectives.weighted_mean((outputs.features["a"] ** 2).sum(-1), given.weight)}

  method = train.supervised(MODEL, spread, train.sgd(0.1))
  given = WITH._replace(labelled=np.zeros(8, bool))
  state = train.initial(method, jax.random.key(0), given)
  new, _ = compiled(method.phases[0].step)(state, given, jax.random.key(1), clock())
  assert largest(moved(state.params, new.params, "a")) > 0


@pytest.mark.parametrize("mixes", [False, True])
def test_a_label_that_a_perturbation_mixes_into_features_is_read(mixes):
  def spread(outputs, given, **extra):
    return {"spread": objectives.weighted_mean((outputs.features["a"] ** 2).sum(-1), given.weight)}

  def perturb(features, given, **extra):
    shift = given.label[:, None].astype(np.float32) if mixes else 1.0
    return {**features, "a": features["a"] + shift}

  method = train.supervised(MODEL, spread, train.sgd(0.1), perturb=perturb)
  given = WITH._replace(labelled=np.zeros(8, bool))
  state = train.initial(method, jax.random.key(0), given)
  new, _ = compiled(method.phases[0].step)(state, given, jax.random.key(1), clock())
  assert (largest(moved(state.params, new.params, "a")) > 0) != mixes
