"""Deep ensembles and shared trunks: whose steps their members take."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, fusion, train
from mmfuse.core import Functions, Outputs, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.ensembles._copies import Copies
from mmfuse.tree import owners_of

from .. import _small

KEY = jax.random.key(3)


@functools.cache
def built(name, **options):
  return METHODS[name](_small.model(), 0.1, **options)


@functools.cache
def stepped(name, **options):
  """(before, after, log) of one step."""
  method = built(name, **options)
  start = _small.start(method)
  return start, *jax.jit(method.phases[0].step)(start, _small.batch(), KEY, _small.clock())


def close(a, b):
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def member(params, number):
  """The parameters of one member, those of its fused head among them, as `joint` has them."""
  name = f"member{number}"
  own = {m: params[m][name] for m in "ab"}
  return {**own, "fused": params["heads"]["fused"][name]}


def test_the_first_member_is_joint_and_no_other_is_like_it():
  _, joint, _ = stepped("joint")
  start, after, log = stepped("deep_ensemble", members=2)
  plain = {**{m: joint.params[m] for m in "ab"}, "fused": joint.params["heads"]["fused"]}
  close(member(after.params, 0), plain)
  kernels = lambda state, k: member(state.params, k)["a"]["dense0"]["kernel"]
  assert not np.allclose(kernels(start, 0), kernels(start, 1))
  moved = np.abs(kernels(after, 1) - kernels(start, 1))
  assert moved.max() > 0 and bool(log["finite"])


def test_it_says_the_mean_of_its_members_and_every_leaf_has_an_owner():
  method, batch = built("deep_ensemble", members=2), _small.batch()
  state = stepped("deep_ensemble", members=2)[0]
  said = jax.jit(method.predict)(state, batch.inputs, batch.mask)
  assert said.aux["members"].shape == (_small.BATCH, 2, _small.CLASSES)
  np.testing.assert_allclose(
    np.exp(said.logits), jax.nn.softmax(said.aux["members"]).mean(1), rtol=1e-5
  )
  owners = jax.tree.leaves(owners_of(state.params, ("a", "b")))
  assert {(o.modality, o.part) for o in owners} == {
    *((m, part) for m in "ab" for part in ("encoder", "head")),
    (None, "head"),
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "task"),
  [("deep_ensemble", "regression"), ("shared_trunk", "multilabel"), ("dibs", "regression")],
)
def test_other_labels_are_learnt_too(name, task):
  rng, rows = np.random.default_rng(0), 12
  label = rng.integers(0, 2, (rows, 2)) if task == "multilabel" else rng.normal(size=(rows, 2))
  arrays = {m: rng.normal(size=(rows, 3)) for m in "ab"}
  splits = data.from_arrays({**arrays, "label": label, "split": np.repeat([0, 1, 2], 4)})
  model = dataclasses.replace(_small.model(), num_classes=2)
  method = METHODS[name](model, 0.1, task=task, members=2)
  batch = jax.tree.map(jnp.asarray, train.to_batch(splits.train))
  state = train.initial(method, KEY, batch)

  def run(state):
    after, log = method.phases[0].step(state, batch, KEY, _small.clock())
    return method.predict(after, batch.inputs, batch.mask), log

  said, log = jax.jit(run)(state)
  assert bool(log["finite"]) and said.logits.shape == (4, 2) and np.isfinite(said.logits).all()


def test_what_it_is_not_defined_for():
  blind = Functions(
    lambda key, inputs, mask: {"params": {"a": {"w": jnp.ones(())}}},
    lambda variables, inputs, mask, **_: (dict(inputs), variables["batch_stats"]),
    lambda variables, features, mask, **_: (Outputs(None), variables["batch_stats"]),
    ("a",),
  )
  with pytest.raises(Unavailable, match="the model has none"):
    _small.start(METHODS["deep_ensemble"](blind, 0.1), 1)
  with pytest.raises(Unavailable, match="cannot be restricted"):
    Copies(blind, 2, "classification").restrict(("a",))
  with pytest.raises(ValueError, match="members must be at least 1"):
    METHODS["deep_ensemble"](_small.model(), 0.1, members=0)
  with pytest.raises(Unavailable, match="shared_trunk replaces the fusion"):
    METHODS["shared_trunk"](blind, 0.1)


def test_copies_restrict_their_model():
  whole = Copies(_small.model(), 2, "classification")
  assert whole.restrict(("b",)) == Copies(_small.model().restrict(("b",)), 2, "classification")
  assert isinstance(whole.model, fusion.LateFusion)
