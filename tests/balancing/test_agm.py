"""AGM: the coefficient's equation, running means, the light modulator."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import balancing, tree
from mmfuse.balancing import _agm


def test_coefficients_by_hand():
  scores, running = {"a": 1.0, "b": 2.0}, {"a": 1.2, "b": 0.4}
  # mean - s: +-.5 now, -.4 and .4 before; n/(n-1) = 2.
  now, before = np.exp([1.0, -1.0]), np.exp([-0.8, 0.8])
  ks = _agm.agm_coefficients(scores, running, 0.5, None)
  np.testing.assert_allclose([ks["a"], ks["b"]], np.exp(0.5 * (before - now)), rtol=1e-6)
  assert ks["a"] < 1 < ks["b"]  # a is further ahead now than before
  capped = _agm.agm_coefficients(scores, running, 0.5, 1.0)
  np.testing.assert_allclose(capped["b"], np.exp(0.5), rtol=1e-6)
  reversed_sign = _agm.agm_coefficients(scores, running, 0.5, None, "released")
  np.testing.assert_allclose(
    reversed_sign["a"], np.exp(0.5 * (1 / before[0] - 1 / now[0])), rtol=1e-5
  )


def test_swapping_modalities_swaps_coefficients():
  one = _agm.agm_coefficients({"a": 0.3, "b": 0.9}, {"a": 0.5, "b": 0.6})
  two = _agm.agm_coefficients({"a": 0.9, "b": 0.3}, {"a": 0.6, "b": 0.5})
  np.testing.assert_allclose([one["a"], one["b"]], [two["b"], two["a"]], rtol=1e-6)


@pytest.mark.parametrize(
  "case",
  [
    ({"a": 1.0, "b": 2.0}, {"a": 1.2, "b": 0.4}, 0.0),  # no strength
    ({"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}, 1.0),  # as far ahead as ever
    ({"a": 1.0}, {"a": 5.0}, 1.0),  # alone
  ],
)
def test_nothing_is_scaled(case):
  ks = _agm.agm_coefficients(*case)
  np.testing.assert_allclose(list(ks.values()), 1.0, rtol=1e-6)


def test_absent_modality_counts_for_nothing():
  present = {"a": True, "b": True, "c": False}
  ks = _agm.agm_coefficients(
    {"a": 1.0, "b": 2.0, "c": 9.0}, {"a": 1.2, "b": 0.4, "c": 7.0}, present=present
  )
  two = _agm.agm_coefficients({"a": 1.0, "b": 2.0}, {"a": 1.2, "b": 0.4})
  np.testing.assert_allclose([ks["a"], ks["b"], ks["c"]], [two["a"], two["b"], 1.0], rtol=1e-6)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"alpha": -1.0}, "alpha must be at least 0"),
    ({"cap": 0.0}, "cap must be above 0"),
    ({"variant": "other"}, "variant must be one of"),
  ],
)
def test_impossible_options(options, message):
  with pytest.raises(ValueError, match=message):
    _agm.scale_by_agm(**options)


def test_scores_are_clipped_means_over_present_rows():
  logits = {"a": jnp.array([[0.0, 0.0], [100.0, 0.0], [0.0, 0.0]]), "b": jnp.zeros((3, 2))}
  label, mask = jnp.array([0, 1, 1]), {"a": jnp.array([True, True, False]), "b": jnp.zeros(3, bool)}
  scores, present = _agm.agm_scores(logits, label, mask)
  np.testing.assert_allclose(scores["a"], (np.log(2) - np.log(1e-8)) / 2, rtol=1e-6)
  assert float(scores["b"]) == 0 and not present["b"] and present["a"]
  both = _agm.agm_scores({"a": jnp.zeros((3, 2))}, jnp.ones((3, 2), jnp.int32))[0]
  np.testing.assert_allclose(both["a"], np.log(2), rtol=1e-6)
  with pytest.raises(ValueError, match="class labels"):
    _agm.agm_scores(logits, jnp.ones(3))


def test_running_scores_are_plain_means():
  state = _agm.init_agm("ab")
  series = [(1.0, True), (2.0, True), (100.0, False), (6.0, True)]
  for value, here in series:
    state = _agm.step_agm(
      state,
      {"a": jnp.float32(value), "b": jnp.float32(1.0)},
      {"a": jnp.array(here), "b": jnp.array(True)},
      1.0,
      10.0,
    )
  np.testing.assert_allclose(state.running["a"], 3.0, rtol=1e-6)
  assert float(state.steps["a"]) == 3 and float(state.steps["b"]) == 4
  first = _agm.step_agm(
    _agm.init_agm("ab"),
    {"a": jnp.float32(0.5), "b": jnp.float32(0.5)},
    {"a": jnp.array(True), "b": jnp.array(True)},
    1.0,
    10.0,
  )
  np.testing.assert_allclose(list(first.coefficients.values()), 1.0)


def test_the_window_switches_the_coefficients_alone():
  before = _agm.AgmState(
    {"a": jnp.float32(1), "b": jnp.float32(2)},
    {m: jnp.float32(1) for m in "ab"},
    {m: jnp.float32(1) for m in "ab"},
  )
  scores, here = {"a": jnp.float32(2), "b": jnp.float32(1)}, {m: jnp.array(True) for m in "ab"}
  on, off = (_agm.step_agm(before, scores, here, 1.0, 10.0, on=o) for o in (True, False))
  assert float(off.coefficients["a"]) == 1 != float(on.coefficients["a"])
  assert on.running == off.running


def test_the_light_form_scales_encoders_only():
  params = {"a": {"w": jnp.ones((2, 2))}, "b": {"w": jnp.ones(2)}, "heads": {"a": jnp.ones(3)}}
  tx = _agm.scale_by_agm(alpha=1.0)
  logits = {"a": jnp.array([[3.0, 0.0]]), "b": jnp.array([[0.0, 0.0]])}
  label = jnp.array([0])
  state = tx.init(params)._replace(
    running={"a": jnp.float32(0.5), "b": jnp.float32(0.5)}, steps={m: jnp.float32(1) for m in "ab"}
  )
  updates, state = tx.update(params, state, unimodal_logits=logits, label=label)
  ahead = np.log1p(np.exp(-3.0)) - np.log(2)
  want = np.exp(1 - np.exp(-ahead))
  np.testing.assert_allclose(updates["a"]["w"], want, rtol=1e-5)
  np.testing.assert_allclose(updates["b"]["w"], np.exp(1 - np.exp(ahead)), rtol=1e-5)
  np.testing.assert_array_equal(updates["heads"]["a"], 1.0)
  split, _ = tx.update(
    params,
    tx.init(params),
    unimodal_logits=logits,
    label=label,
    split_logits={m: jnp.zeros((1, 2)) for m in "ab"},
  )
  np.testing.assert_array_equal(split["a"]["w"], 1.0)
  with pytest.raises(ValueError, match="'a' has no logits"):
    tx.update(params, tx.init(params), unimodal_logits={"b": logits["b"]}, label=label)


def test_the_light_form_keeps_the_contract():
  balancing.check_contract(_agm.scale_by_agm)


def test_clipping_looks_at_the_fused_head():
  params = {"a": jnp.full(4, 3.0), "heads": {"a": jnp.ones((2, 2)), "fused": jnp.zeros((2, 2))}}
  owners = tree.owners_of(params, ["a"])
  tx = _agm.clip_if_head_exceeds()
  calm, _ = tx.update(params, optax.EmptyState(), owners=owners)
  np.testing.assert_array_equal(calm["a"], 3.0)
  params["heads"]["fused"] = jnp.array([[8.0, 0.0], [0.0, 0.0]])
  clipped, _ = tx.update(params, optax.EmptyState(), owners=owners)
  np.testing.assert_allclose(clipped["a"], 0.3, rtol=1e-6)  # norm 10: 4 * 9 + 64
  np.testing.assert_allclose(clipped["heads"]["fused"][0, 0], 0.8, rtol=1e-6)
  np.testing.assert_array_equal(clipped["heads"]["a"], 1.0)
  assert jax.tree.structure(clipped) == jax.tree.structure(params)
  with pytest.raises(ValueError, match="above 0"):
    _agm.clip_if_head_exceeds(0.0)
