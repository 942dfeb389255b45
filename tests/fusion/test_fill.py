"""Placeholders of absent modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion
from mmfuse.core import Unavailable

ROWS = 4
MASK = {"a": jnp.asarray([True, True, False, False]), "b": jnp.asarray([True, False, True, False])}
INPUTS = {
  m: jnp.asarray(np.random.default_rng(i).normal(size=(ROWS, 3)), jnp.float32)
  for i, m in enumerate("ab")
}
PLAIN = fusion.LateFusion({m: encoders.MLP(2, ()) for m in "ab"}, 2, fusion.Concat())


def made(policy):
  model = fusion.Fill(PLAIN, policy)
  return model, model.init(jax.random.key(0), INPUTS, MASK)


def outputs(model, variables, mask=MASK, train=False):
  features, stats = model.encode(variables, INPUTS, mask, train=train)
  return features, *model.heads({**variables, "batch_stats": stats}, features, mask, train=train)


@pytest.mark.parametrize("policy", ["skip", "zero", "token", "mean"])
def test_at_first_every_placeholder_is_what_concatenation_has_anyway(policy):
  """Tokens and means begin at 0, and a concatenation does not read the mask."""
  model, variables = made(policy)
  _, said, stats = outputs(model, variables)
  _, want, _ = outputs(PLAIN, PLAIN.init(jax.random.key(0), INPUTS, MASK))
  np.testing.assert_allclose(said.logits, want.logits, atol=1e-6)
  assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])


def test_the_mean_is_that_of_the_rows_that_have_it_and_moves_in_training_alone():
  model, variables = made("mean")
  features, _, stats = outputs(model, variables, train=True)
  want = np.asarray(features["a"])[:2].mean(0)
  np.testing.assert_allclose(stats["fill"]["mean"]["a"], want, rtol=1e-6)  # the first batch
  again = {**variables, "batch_stats": stats}
  nobody = {"a": jnp.zeros(ROWS, bool), "b": MASK["b"]}
  _, _, held = outputs(model, again, nobody, train=True)
  np.testing.assert_allclose(held["fill"]["mean"]["a"], want, rtol=1e-6)
  only_first = {"a": jnp.arange(ROWS) < 1, "b": MASK["b"]}
  moved = outputs(model, again, only_first, train=True)[2]["fill"]["mean"]["a"]
  np.testing.assert_allclose(moved, 0.9 * want + 0.1 * np.asarray(features["a"])[0], rtol=1e-5)
  still = outputs(model, again)[2]
  np.testing.assert_array_equal(still["fill"]["mean"]["a"], stats["fill"]["mean"]["a"])


def test_the_heads_get_the_placeholder_and_a_row_with_nothing_stays():
  model, variables = made("token")
  token = {"a": jnp.asarray([5.0, -1.0]), "b": jnp.asarray([2.0, 3.0])}
  variables = {**variables, "params": {**variables["params"], "fill": token}}
  features = {m: jnp.where(MASK[m][:, None], 1.0, 0.0) * jnp.ones((ROWS, 2)) for m in "ab"}
  filled, mask = model._filled(variables, features, MASK)
  np.testing.assert_allclose(filled["a"], [[1, 1], [1, 1], [5, -1], [0, 0]])
  np.testing.assert_allclose(filled["b"], [[1, 1], [2, 3], [1, 1], [0, 0]])
  assert mask["a"].tolist() == mask["b"].tolist() == [True, True, True, False]
  loss = lambda p: outputs(model, {**variables, "params": p})[1].logits.sum()
  grad = jax.grad(loss)(variables["params"])["fill"]
  assert all(np.abs(g).max() > 0 for g in grad.values())


def test_restricting_keeps_the_policy_and_bad_names_are_refused():
  assert fusion.Fill(PLAIN, "token").restrict(("a",)) == fusion.Fill(
    PLAIN.restrict(("a",)), "token"
  )
  with pytest.raises(
    ValueError, match="unknown fill 'x'; expected one of: skip, zero, mean, token"
  ):
    fusion.Fill(PLAIN, "x")
  named = fusion.LateFusion({m: encoders.MLP(2, ()) for m in ("a", "fill")}, 2)
  with pytest.raises(Unavailable, match="a modality is called 'fill'"):
    fusion.Fill(named)
