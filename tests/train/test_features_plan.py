"""Rules on feature gradients, the handles objectives may name, and perturbations of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing, objectives, train
from mmfuse.balancing._bogc_laplace import aggregate_by_bogc_laplace

from ._problems import batch, gradient, late_fusion, one_step, plain, summing


def close(found, wanted, rtol):
  total = np.sqrt(sum(float((np.asarray(w) ** 2).sum()) for w in jax.tree.leaves(wanted)))
  apart = jax.tree.map(lambda f, w: ((np.asarray(f) - np.asarray(w)) ** 2).sum(), found, wanted)
  assert np.sqrt(sum(jax.tree.leaves(apart))) < rtol * total


@pytest.mark.parametrize("num", [1, 3])
def test_a_sum_on_features_is_the_sum(num):
  model, given = late_fusion(num), batch(num)
  wanted = gradient(train.supervised(model, tx=plain()), given)
  rule = {"aggregator": summing(), "aggregate_on": "features"}
  close(gradient(train.supervised(model, tx=plain(), **rule), given), wanted, 1e-5)


def test_features_labels_name_their_two_objectives_and_absent_encoders_rest():
  record = {}
  method = train.supervised(
    late_fusion(2), tx=plain(), aggregator=summing(record), aggregate_on="features"
  )
  before, after, _ = one_step(method, batch(2, absent=("b",)))
  assert {m: (l.part, l.objectives) for m, l in record["owners"].items()} == {
    "a": ("encoder", (0, 1)),
    "b": ("encoder", (0, 2)),
  }
  assert {"features", "heads", "key", "label", "mask"} <= set(record["names"])
  same = jax.tree.map(lambda x, y: bool((x == y).all()), before.params, after.params)
  assert all(jax.tree.leaves(same["b"])) and not all(jax.tree.leaves(same["a"]))


def test_bogc_on_features_with_a_certain_posterior_is_the_sum():
  """gamma -> 0: the moments are the gradients at the current heads, trusted alike."""
  model, given = late_fusion(2, "none", 0.0), batch(2)
  wanted = gradient(train.supervised(model, tx=plain()), given)
  rule = aggregate_by_bogc_laplace(3, prior_variance=1e-9, samples=2, rescale="sum")
  found = gradient(
    train.supervised(model, tx=plain(), aggregator=rule, aggregate_on="features"), given
  )
  close(found, wanted, 1e-4)


@pytest.mark.parametrize(
  "options, words",
  [
    ({}, "aggregator of gradients"),
    ({"aggregator": balancing.mimo(3)}, "aggregator of gradients"),
    ({"aggregator": balancing.mgda(3), "parts": 2}, "parts=1"),
    ({"aggregator": balancing.mgda(3), "plan": "stacked"}, "plan of its own"),
  ],
)
def test_features_are_for_aggregators(options, words):
  with pytest.raises(ValueError, match=words):
    train.supervised(late_fusion(2), aggregate_on="features", **options)


def with_handles(outputs, batch, *, encode, heads, **extra):
  """The fused loss of features encoded again, in evaluation mode."""
  del extra
  again = heads(encode(batch.inputs, batch.mask), batch.mask)
  np.testing.assert_equal(again.logits.shape, outputs.logits.shape)
  return objectives.fused(again, batch)


def test_handles_are_the_model_and_differentiable():
  """Without batch norm and dropout training and evaluation agree."""
  model, given = late_fusion(2, "none", 0.0), batch(2)
  probed = gradient(train.supervised(model, objectives.fused, plain()), given)
  close(gradient(train.supervised(model, with_handles, plain()), given), probed, 1e-5)


def test_a_perturbation_may_drop_rows():
  """A row whose weight it sets to zero counts for nothing; it can look at the heads."""
  model, given = late_fusion(2, "none", 0.0), batch(2)
  keep = jnp.arange(8) != 2

  def drop(features, batch, *, key, clock, heads):
    assert heads(features, batch.mask).logits.shape == (8, 3)
    return features, batch._replace(weight=jnp.where(keep, batch.weight, 0.0))

  found = gradient(train.supervised(model, tx=plain(), perturb=drop), given)
  fewer = given._replace(weight=jnp.where(keep, given.weight, 0.0))
  close(found, gradient(train.supervised(model, tx=plain()), fewer), 1e-5)


def test_a_phase_has_its_own_name_optimiser_and_memory():
  model, given = late_fusion(2), batch(2)
  method = train.supervised(model, tx=plain(), name="teacher")
  before, after, _ = one_step(method, given)
  assert method.phases[0].name == "teacher"
  assert set(before.opt) == set(after.opt) == {"teacher"}
  assert set(before.memory) == set(after.memory) == {"objective/teacher"}
