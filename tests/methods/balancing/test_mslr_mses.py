"""MSLR and MSES: the epoch's arithmetic by hand, what is scaled, and the methods around them."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import balancing
from mmfuse.balancing import _mses, _mslr
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _mses as mses_method
from mmfuse.methods.balancing import _mslr as mslr_method

from . import _modulated

PARAMS = {
  "a": {"w": jnp.ones(2)},
  "b": {"w": jnp.ones(2)},
  "heads": {"a": {"k": jnp.ones(2)}, "fused": {"branch_b": jnp.ones(2), "kernel": jnp.ones(2)}},
}


def test_rates_follow_the_accuracies():
  tx = _mslr.scale_by_mslr("ab", initial={"a": 1.3}, window=3)
  initial, state = _mslr.initial_rates("ab", {"a": 1.3}), tx.init(PARAMS)
  factors = []
  for accuracy in (0.5, 0.6, 0.7, 0.8):
    state = mslr_method.mslr_state(state, {"a": accuracy, "b": 0.4}, initial)
    factors.append((float(state.coefficients["a"]), float(state.coefficients["b"])))
  want = [1.3, 1.3 * 0.6 / 0.55, 1.3 * 0.7 / 0.6, 1.3 * 0.8 / 0.7]
  np.testing.assert_allclose([a for a, _ in factors], want, rtol=1e-5)
  np.testing.assert_allclose([b for _, b in factors], 1.0, rtol=1e-6)
  same = mslr_method.mslr_state(state, {"a": float("nan"), "b": 0.4}, initial)
  np.testing.assert_array_equal(same.recent["a"], state.recent["a"])
  assert float(same.coefficients["a"]) == float(state.coefficients["a"])


@pytest.mark.parametrize("build", [_mslr.scale_by_mslr, _mses.scale_by_mses])
def test_encoder_head_and_branch_are_scaled(build):
  tx = build("ab", initial={"a": 2.0, "b": 0.5})
  updates, state = tx.update(PARAMS, tx.init(PARAMS))
  for got, want in (
    (updates["a"]["w"], 2.0),
    (updates["heads"]["a"]["k"], 2.0),
    (updates["b"]["w"], 0.5),
    (updates["heads"]["fused"]["branch_b"], 0.5),
    (updates["heads"]["fused"]["kernel"], 1.0),
  ):
    np.testing.assert_array_equal(got, want)
  assert not any(x.weak_type for x in (*state.coefficients.values(),))


@pytest.mark.slow
@pytest.mark.parametrize("build", [_mslr.scale_by_mslr, _mses.scale_by_mses])
def test_the_contract_is_kept(build):
  balancing.check_contract(lambda: build(("modality_0", "modality_1")))


@pytest.mark.parametrize("build", [_mslr.scale_by_mslr, _mses.scale_by_mses])
@pytest.mark.parametrize(
  ("initial", "message"), [({"z": 1.0}, "'z' not in the model"), ({"a": 0.0}, "must be positive")]
)
def test_impossible_initial_factors(build, initial, message):
  with pytest.raises(ValueError, match=message):
    build("ab", initial=initial)


def test_a_modality_stops_after_its_patience():
  state = _mses.scale_by_mses("a").init(PARAMS)
  seen = []
  for loss in (1.0, 0.5, 2.0, 2.0, 0.1):
    state, better, stops = mses_method.mses_state(state, {"a": loss}, patience=2)
    seen.append((bool(better["a"]), bool(stops["a"]), float(state.coefficients["a"])))
  # Smoothed: 1, .8, 1.28, 1.568, .98: the minimum is the second, and it waits twice.
  assert seen == [
    (True, False, 1.0),
    (True, False, 1.0),
    (False, False, 1.0),
    (False, True, 0.0),
    (False, False, 0.0),
  ]
  np.testing.assert_allclose(state.smoothed["a"], 0.6 * 1.568 + 0.4 * 0.1, rtol=1e-5)
  np.testing.assert_allclose(state.lowest["a"], 0.8, rtol=1e-6)


def test_a_loss_that_is_not_known_changes_nothing():
  state = _mses.scale_by_mses("a").init(PARAMS)
  state, better, stops = mses_method.mses_state(state, {"a": float("nan")}, patience=1)
  assert not better["a"] and not stops["a"] and int(state.waited["a"]) == 0


@pytest.mark.slow
def test_mslr_fits_and_follows_its_heads():
  state, log = _modulated.fitted(
    METHODS["mslr"](_modulated.model(2), 0.1, initial={"a": 1.5}), epochs=3
  )
  rule = state.opt["train"]["tx"][-1]
  window = np.asarray(rule.recent["a"])
  accuracy = [entry["validation"]["a"]["accuracy"] for entry in log.history]
  np.testing.assert_allclose(window[-3:], accuracy, atol=1e-6)
  np.testing.assert_allclose(
    rule.coefficients["a"], 1.5 * window[-1] / window[-3:].mean(), rtol=1e-5
  )
  assert _modulated.finite(state.params)


def test_mses_puts_the_best_state_back_and_stops():
  """Losses that only rise: the first epoch's encoder is the best, and comes back for good."""
  method = METHODS["mses"](_modulated.model(2), tx=optax.sgd(0.5), patience=1)
  given = _modulated.splits(2)
  hook = method.phases[0].epoch_end
  hooks = {"train": given.train, "validation": given.validation}
  batch = _modulated.batch(2)
  start, state, _ = _modulated.one_step(method, batch)
  first = hook(state, hooks, None, _modulated.hour(1))
  np.testing.assert_array_equal(
    first.memory["mses"]["a"]["encoder"]["dense0"]["kernel"], state.params["a"]["dense0"]["kernel"]
  )
  far = {m: {"dense0": {k: v + 50.0 for k, v in first.params[m]["dense0"].items()}} for m in "ab"}
  worse = first._replace(params={**first.params, **far})
  after = hook(worse, hooks, None, _modulated.hour(2))
  for m in "ab":
    np.testing.assert_array_equal(
      after.params[m]["dense0"]["kernel"], state.params[m]["dense0"]["kernel"]
    )
    assert float(after.opt["train"]["tx"][-1].coefficients[m]) == 0
  _, moved, _ = _modulated.one_step(method, batch, after)
  np.testing.assert_array_equal(
    moved.params["a"]["dense0"]["kernel"], after.params["a"]["dense0"]["kernel"]
  )
  assert not np.array_equal(
    start.params["a"]["dense0"]["kernel"], state.params["a"]["dense0"]["kernel"]
  )


@pytest.mark.parametrize("build", [METHODS["mslr"], METHODS["mses"]])
def test_no_validation_split(build):
  method = build(_modulated.model(2))
  with pytest.raises(Unavailable, match="needs a validation split"):
    method.phases[0].begin(
      None, _modulated.without_validation(_modulated.splits(2)), None, _modulated.hour()
    )


@pytest.mark.parametrize(
  ("options", "message"), [({"patience": 0}, "patience"), ({"smoothing": 1.0}, "smoothing")]
)
def test_impossible_options_of_mses(options, message):
  with pytest.raises(ValueError, match=message):
    METHODS["mses"](_modulated.model(2), **options)
