"""A second network beside a model's own: its parameters, its statistics, and that prediction has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion
from mmfuse.core import Unavailable
from mmfuse.methods.missing._branch import BRANCH, Branched, own_part

from .. import _small

MODEL = fusion.LateFusion({m: encoders.MLP(3, (), "none") for m in "ab"}, 3, fusion.Mmtm())


@pytest.fixture(scope="module")
def made():
  batch = _small.batch()
  run = lambda model: model.init(jax.random.key(0), batch.inputs, batch.mask)
  return batch, run(MODEL), run(Branched(MODEL))


def run(model, variables, batch, train):
  features, stats = model.encode(variables, batch.inputs, batch.mask, train=train)
  return model.heads({**variables, "batch_stats": stats}, features, batch.mask, train=train)


def test_it_is_what_is_of_no_modality_begun_anew(made):
  _, plain, branched = made
  jax.tree.map(np.testing.assert_array_equal, own_part(branched["params"]), plain["params"])
  branch = branched["params"][BRANCH]
  assert list(branch) == ["heads"] and list(branch["heads"]) == ["fused"]
  own = plain["params"]["heads"]["fused"]
  assert jax.tree.structure(branch["heads"]["fused"]) == jax.tree.structure(own)
  first = lambda p: np.asarray(p["out"]["kernel"])
  assert np.abs(first(branch["heads"]["fused"]) - first(own)).max() > 0.1


def test_training_hears_both_and_prediction_the_model_alone(made):
  batch, plain, branched = made
  model = Branched(MODEL)
  own, moved = run(MODEL, plain, batch, True)
  both, stats = run(model, branched, batch, True)
  np.testing.assert_array_equal(both.logits, own.logits)
  jax.tree.map(np.testing.assert_array_equal, own_part(stats), moved)
  # The branch has statistics of its own, which move.
  before = branched["batch_stats"][BRANCH]
  assert jax.tree.structure(stats[BRANCH]) == jax.tree.structure(before)
  steps = stats[BRANCH]["heads"]["fused"]["running"]["steps"]
  assert all(float(s) == 1 for s in steps.values())
  # The branch is the model with its parameters in their place.
  swapped = {**plain["params"], "heads": {**plain["params"]["heads"]}}
  swapped["heads"]["fused"] = branched["params"][BRANCH]["heads"]["fused"]
  other, _ = run(MODEL, {**plain, "params": swapped}, batch, True)
  np.testing.assert_array_equal(both.aux[BRANCH], other.logits)
  assert np.abs(np.asarray(other.logits - own.logits)).max() > 1e-2
  said, still = run(model, branched, batch, False)
  assert BRANCH not in said.aux
  jax.tree.map(np.testing.assert_array_equal, still, branched["batch_stats"])
  np.testing.assert_array_equal(said.logits, run(MODEL, plain, batch, False)[0].logits)


def test_its_gradient_reaches_the_encoders_and_no_other_head(made):
  batch, _, branched = made

  def loss(params):
    outputs, _ = run(Branched(MODEL), {**branched, "params": params}, batch, True)
    return jnp.square(outputs.aux[BRANCH]).sum()

  grads = jax.grad(loss)(branched["params"])
  size = lambda g: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(g))
  assert min(size(grads[k]) for k in ("a", "b", BRANCH)) > 0
  assert size(grads["heads"]) == 0


def test_it_restricts_and_refuses_its_own_name():
  assert Branched(MODEL).restrict(["a"]).modalities == ("a",)
  assert Branched(MODEL) == Branched(MODEL) and hash(Branched(MODEL)) == hash(Branched(MODEL))
  other = fusion.LateFusion({BRANCH: encoders.MLP(3), "b": encoders.MLP(3)}, 2)
  with pytest.raises(Unavailable, match="a modality is called 'branch'"):
    Branched(other)
