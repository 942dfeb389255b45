"""Cross translation, and the network of two branches around it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, train
from mmfuse.core import Functions, Outputs, Sequence, Unavailable
from mmfuse.fusion import LateFusion
from mmfuse.methods.missing import _two_branches as two

RNG = np.random.default_rng(0)
A, G = (jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32) for _ in range(2))
WEIGHTS = two.init_translation(jax.random.key(0), 4)
translate = jax.jit(two.cross_translation)


def test_translation_by_hand():
  """T_1 x = ReLU(x_1 - x_2), T_2 x = ReLU(x_2 + 1), fused = ReLU(half the sum of both joints - 1)."""
  column = lambda *k: {"kernel": jnp.asarray([[k[0]], [k[1]]]), "bias": jnp.asarray([k[2]])}
  weights = {"first": column(1.0, -1.0, 0.0), "second": column(0.0, 1.0, 1.0)}
  weights["join"] = {"kernel": jnp.eye(2), "bias": -jnp.ones(2)}
  a, g = jnp.asarray([[3.0, 1.0]]), jnp.asarray([[0.0, 4.0]])
  fused, joint_a, joint_g = two.cross_translation(weights, a, g)
  assert joint_a.tolist() == [[2.0, 2.0]] and joint_g.tolist() == [[0.0, 5.0]]
  assert fused.tolist() == [[0.0, 2.5]]


def test_swapping_the_branches_swaps_the_joints():
  fused, joint_a, joint_g = translate(WEIGHTS, A, G)
  again, other_a, other_g = translate(WEIGHTS, G, A)
  for x, y in ((fused, again), (joint_a, other_g), (joint_g, other_a)):
    np.testing.assert_allclose(x, y, atol=1e-6)
  alone = translate(WEIGHTS, A, A)
  np.testing.assert_array_equal(alone[1], alone[2])
  assert np.abs(alone[0] - fused).max() > 1e-3


def test_maps_are_translated_pixel_by_pixel():
  maps = [jnp.broadcast_to(x[:, None, None], (5, 2, 3, 4)) for x in (A, G)]
  for whole, one in zip(translate(WEIGHTS, *maps), translate(WEIGHTS, A, G)):
    assert whole.shape == (5, 2, 3, 4)
    np.testing.assert_allclose(whole[:, 1, 2], one, atol=1e-6)


def test_an_odd_width_keeps_its_width():
  weights = two.init_translation(jax.random.key(0), 5)
  wide = jnp.concatenate([A, G[:, :1]], axis=1)
  assert [x.shape for x in two.cross_translation(weights, wide, wide)] == [(5, 5)] * 3


# The network.

KINDS = {"image": encoders.MLP(6, ()), "text": encoders.GRU(4)}
MASK = {"image": jnp.arange(5) != 0, "text": jnp.arange(5) != 1}
INPUTS = {
  "image": jnp.asarray(RNG.normal(size=(5, 3, 3)), jnp.float32),
  "text": Sequence(jnp.asarray(RNG.normal(size=(5, 7, 2)), jnp.float32), jnp.arange(1, 6)),
}


@functools.cache
def network(available, privileged):
  model = LateFusion(KINDS, 3)
  branches = two.Branches(model.restrict((available,)), model.restrict((privileged,)))
  variables = jax.jit(branches.init)(jax.random.key(0), INPUTS, MASK)
  return branches, variables


@functools.partial(jax.jit, static_argnames="branches")
def say(branches, variables, inputs, mask):
  g, _ = branches.restore(variables, inputs, mask, train=False)
  return g, branches.translate(variables, g.features, inputs, mask, train=False)[0]


@pytest.mark.slow
@pytest.mark.parametrize("available, privileged", [("text", "image"), ("image", "text")])
def test_features_of_another_width_are_taken_to_the_teachers(available, privileged):
  branches, variables = network(available, privileged)
  assert list(variables["params"]) == [available]  # nothing moves without a row that has it
  g, said = say(branches, variables, INPUTS, MASK)
  own, its = ({"image": 6, "text": 4}[m] for m in (available, privileged))
  assert g.features.shape == (5, own) == said.fused.shape and g.rows.shape == (5, its)
  assert g.logits.shape == said.logits.shape == (5, 3)
  assert two.RESIZE in variables["params"][available][two.RESTORED]
  assert np.abs(said.own - g.features).max() > 1e-3  # the copies start differently
  assert not np.any(said.fused[~MASK[available]])


def test_features_of_one_width_are_compared_as_they_are():
  model = LateFusion({m: encoders.MLP(4, ()) for m in "ab"}, 3)
  branches = two.Branches(model.restrict(("a",)), model.restrict(("b",)))
  given = dict.fromkeys("ab", A), {m: jnp.ones(5, bool) for m in "ab"}
  variables = branches.init(jax.random.key(0), *given)
  assert two.RESIZE not in variables["params"]["a"][two.RESTORED]
  g, _ = branches.restore(variables, *given, train=False)
  np.testing.assert_array_equal(g.rows, g.features)


def test_a_branch_is_the_restricted_model():
  branches, variables = network("text", "image")
  g, _ = say(branches, variables, INPUTS, MASK)
  network_of = variables["params"]["text"][two.RESTORED][two.NETWORK]
  said = train.outputs_of(branches.available, {"params": network_of, "stats": {}}, INPUTS, MASK)
  np.testing.assert_allclose(g.features, said.features["text"], atol=1e-6)
  np.testing.assert_allclose(g.logits, said.unimodal_logits["text"], atol=1e-6)


def test_where_it_is_undefined():
  model = LateFusion({m: encoders.MLP(1, ()) for m in "ab"}, 3)
  branches = two.Branches(model.restrict(("a",)), model.restrict(("b",)))
  given = dict.fromkeys("ab", A), {m: jnp.ones(5, bool) for m in "ab"}
  with pytest.raises(Unavailable, match="one array of two units or more"):
    branches.init(jax.random.key(0), *given)
  with pytest.raises(Unavailable, match="a head for each modality"):
    two.own_logits(Outputs(A), "a")
  bare = Functions(
    lambda key, inputs, mask: {"params": {}},
    lambda variables, inputs, mask, **how: ({"a": {"x": inputs["a"]}}, {}),
    None,
    ("a",),
  )
  with pytest.raises(Unavailable, match="one array"):
    two.Branches(bare, bare).init(jax.random.key(0), *given)
