"""Fusions that attend to steps read those of each row's own length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion
from mmfuse.core import Sequence
from mmfuse.fusion._features import sequences, within
from mmfuse.fusion._mult import last

QUICK = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
HEADS = {
  "mult": fusion.MulT(4, 2, 1, 1),
  "bottleneck": fusion.Bottleneck(4, 2, 2, 0, 1),
  "perceiver": fusion.Perceiver(2, 4, 2, 1),
}


def test_steps_of_zeros_at_the_end_are_none():
  x = jnp.array([[[1.0], [0], [2], [0]], [[0], [0], [0], [0]], [[3], [3], [3], [3]]])
  there = jnp.array([True, True, False])
  found = sequences({"b": x, "a": x[:, :, 0]}, {"a": there, "b": there})
  assert list(found) == ["a", "b"]
  np.testing.assert_array_equal(found["a"].length, [1, 1, 0])
  assert found["a"].values.shape == (3, 1, 4)
  np.testing.assert_array_equal(found["b"].length, [3, 1, 0])  # a present row has a step at least
  np.testing.assert_array_equal(within(found["b"]), [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
  np.testing.assert_array_equal(found["b"].values[2], 0)
  told = sequences({"b": Sequence(x, jnp.array([2, 4, 4]))}, {"b": there})["b"]
  np.testing.assert_array_equal(told.length, [2, 4, 0])
  np.testing.assert_array_equal(told.values[0], [[1], [0], [0], [0]])


def test_the_last_step_is_that_of_the_row():
  x = jnp.arange(6.0).reshape(2, 3, 1)
  np.testing.assert_array_equal(last(x, jnp.array([2, 3])), [[1], [5]])
  np.testing.assert_array_equal(last(x, jnp.array([0, 1])), [[0], [3]])


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_row_among_longer_ones_is_what_it_is_alone(name):
  """Row 0 has 3 of 5 steps of a, and 2 of 4 of b."""
  head, rng = HEADS[name], np.random.default_rng(0)
  lengths = {"a": (3, 5), "b": (2, 4)}
  whole = {
    m: jnp.asarray(rng.normal(size=(2, long, 3)), jnp.float32) for m, (_, long) in lengths.items()
  }
  whole = {m: x.at[0, lengths[m][0] :].set(0) for m, x in whole.items()}
  there = {m: jnp.ones(2, bool) for m in whole}
  run = QUICK(lambda v, x, mask: head.apply(v, x, mask, num_classes=2, train=False)[0])
  init = lambda: head.init(jax.random.key(0), whole, there, num_classes=2, train=False)
  variables = jax.tree.map(
    lambda p: jnp.asarray(0.4 * rng.normal(size=p.shape), p.dtype), jax.eval_shape(init)
  )
  cut = jax.tree_util.tree_map_with_path(
    lambda path, p: (
      p[:, : lengths[key[-1]][0]] if (key := path[-1].key).startswith("positions") else p
    ),
    variables,
  )
  short = {m: x[:1, : lengths[m][0]] for m, x in whole.items()}
  found = run(variables, whole, there)[0]
  alone = run(cut, short, {m: v[:1] for m, v in there.items()})[0]
  np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)
  assert not np.allclose(
    found, run(variables, {**whole, "a": whole["a"].at[0, 3].set(1)}, there)[0]
  )


def test_sequences_reach_the_fusion_as_steps_and_other_encoders_as_arrays():
  """`a` keeps its steps, `b` reads arrays; NaN after the ends of both is never seen."""
  model = fusion.LateFusion(
    {"a": encoders.Conv1D(3, (3,), 3, pool="none"), "b": encoders.MLP(3, ())}, 2, HEADS["perceiver"]
  )
  x = np.random.default_rng(0).normal(size=(3, 8, 2)).astype(np.float32)
  length = np.array([8, 3, 5], np.int32)
  after = np.arange(8)[None] >= length[:, None]
  there = {"a": jnp.array([True, True, False]), "b": jnp.ones(3, bool)}
  junk, clean = (
    {m: Sequence(np.where(after[..., None], v, x), length) for m in "ab"} for v in (np.nan, 0)
  )

  @QUICK
  def run(inputs):
    variables = model.init(jax.random.key(0), inputs, there)
    features, _ = model.encode(variables, inputs, there, train=True)
    return features, model.heads(variables, features, there, train=True)[0].logits

  found = run(junk)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(run(clean)), strict=True):
    assert np.isfinite(a).all()
    np.testing.assert_array_equal(a, b)
  steps = np.asarray(found[0]["a"]).reshape(3, 8, 3)
  np.testing.assert_array_equal((steps != 0).any(-1).sum(1), [8, 3, 0])


def test_encoders_keep_their_steps_for_a_fusion_that_attends_to_them():
  model = fusion.LateFusion({"a": encoders.Conv1D(), "b": encoders.MLP()}, 2)
  for name, head in HEADS.items():
    kept = fusion.with_fusion(model, head, name)
    assert kept.encoders == {"a": encoders.Conv1D(pool="none"), "b": encoders.MLP()}
  assert fusion.with_fusion(model, fusion.Sum(), "sum").encoders == model.encoders
