"""Greedy: speeds by hand, windows of held gates, and models it is not defined for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import train
from mmfuse.core import Unavailable
from mmfuse.fusion import LateFusion
from mmfuse.fusion._mmtm import Mmtm
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _greedy

from . import _modulated


def tree_of(a, b, squeeze, excite_a, excite_b):
  """One scalar weight per group, in the places of `LateFusion` with `Mmtm`."""
  leaf = lambda v: {"w": jnp.full(1, v)}
  return {
    "a": leaf(a),
    "b": leaf(b),
    "heads": {
      "fused": {
        "squeeze": leaf(squeeze),
        "excite_a": leaf(excite_a),
        "excite_b": leaf(excite_b),
        "out": leaf(9.0),
      }
    },
  }


def test_speeds_by_hand():
  params, grads = tree_of(1.0, 2.0, 1.0, 2.0, 3.0), tree_of(2.0, 2.0, 3.0, 4.0, 1.0)
  rule = _greedy.track_speed(("a", "b"))
  same, state = rule.update(grads, rule.init(params), params)
  assert same is grads
  np.testing.assert_allclose([state.main["a"], state.main["b"]], [4.0, 1.0], rtol=1e-6)
  # Norms of all leaves of a group together: (9 + 16) / (1 + 4), (9 + 1) / (1 + 9).
  np.testing.assert_allclose([state.bypass["a"], state.bypass["b"]], [5.0, 1.0], rtol=1e-6)
  np.testing.assert_allclose(_greedy.speed_difference(state), np.log10(5 / 4), rtol=1e-6)
  _, state = rule.update(grads, state, params)
  np.testing.assert_allclose(state.bypass["a"], 10.0, rtol=1e-6)


def test_no_speed_before_anything_has_moved():
  state = _greedy.track_speed(("a", "b")).init({})
  assert float(_greedy.speed_difference(state)) == 0.0


def idle(state, batch, key, clock):
  """A step that only adds 1 and 10^speed to the accumulators; `batch` is the speed."""
  old = state.opt["train"]["tx"][0]
  gain = {"a": jnp.float32(10.0**batch), "b": jnp.float32(1)}
  new = _greedy.SpeedState(
    {m: v + 1 for m, v in old.main.items()}, {m: v + gain[m] for m, v in old.bypass.items()}
  )
  return state._replace(opt={"train": {"tx": (new, ())}}), {}


def curated(speed, epochs, start_epoch=0):
  """(which gates were held in each step, the last state)."""
  method = METHODS["greedy"](_modulated.model(2, fusion=Mmtm()))
  state = train.initial(method, jax.random.key(0), _modulated.batch(2))
  step, held = _greedy._CuratedStep(idle, ("a", "b"), 0.001, 3, start_epoch), []
  for epoch in epochs:
    held.append({m: float(v) for m, v in _greedy.held_gates(state).items()})
    state, _ = step(state, speed, None, _modulated.clock(epoch=epoch))
  return held, state


@pytest.mark.parametrize(("speed", "chosen", "other"), [(0.5, "a", "b"), (-0.5, "b", "a")])
def test_windows_end_and_a_free_step_follows(speed, chosen, other):
  held, state = curated(speed, [0] * 9)
  assert [h[chosen] for h in held] == [0, 1, 1, 1, 0, 1, 1, 1, 0]
  assert all(h[other] == 0 for h in held)
  # Three free steps moved the accumulators, six held ones did not.
  assert float(state.opt["train"]["tx"][0].main["a"]) == 3


def test_windows_wait_for_their_first_epoch():
  held, state = curated(0.5, [0, 0, 1, 1], start_epoch=1)
  assert [h["a"] for h in held] == [0, 0, 0, 1]
  assert float(state.opt["train"]["tx"][0].main["a"]) == 3


def test_in_balance_nothing_is_held():
  held, state = curated(0.0004, [0] * 3)
  assert all(v == 0 for h in held for v in h.values())
  assert int(state.memory["greedy"]["left"]) == 0


@pytest.mark.slow
def test_fits_with_missing_entries():
  method = METHODS["greedy"](_modulated.model(2, "batch", fusion=Mmtm()), 0.1, start_epoch=1)
  state, log = _modulated.fitted(method, epochs=3)
  losses = _modulated.fused_losses(log)
  assert _modulated.finite((state.params, state.stats)) and losses[-1] < losses[0]
  # The window opens after the first step of epoch 1 and takes the five that are left.
  assert abs(log.history[-1]["learning_speed_difference"]) > 0.001
  assert int(state.memory["greedy"]["left"]) == 0


def test_a_modality_absent_from_the_whole_batch():
  method = METHODS["greedy"](_modulated.model(2, fusion=Mmtm()), 0.1)
  given = _modulated.batch(2, absent=("b",))
  before, after, log = _modulated.one_step(method, given)
  assert log["finite"] and _modulated.finite(after.params)
  assert float(log["learning_speed_difference"]) == 0  # encoder b has not moved yet
  np.testing.assert_array_equal(
    before.params["b"]["dense0"]["kernel"], after.params["b"]["dense0"]["kernel"]
  )
  again = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), after)
  assert again == jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), before)


@pytest.mark.parametrize(
  ("model", "message"),
  [
    (_modulated.model(1, fusion=Mmtm()), "has 1"),
    (_modulated.model(3, fusion=Mmtm()), "has 3"),
    (_modulated.model(2), "MMTM gates"),
  ],
)
def test_undefined_for_other_models(model: LateFusion, message):
  with pytest.raises(Unavailable, match=message):
    METHODS["greedy"](model)


@pytest.mark.parametrize(
  ("options", "message"), [({"alpha": -1.0}, "alpha"), ({"window": 0}, "window")]
)
def test_impossible_options(options, message):
  with pytest.raises(ValueError, match=message):
    METHODS["greedy"](_modulated.model(2, fusion=Mmtm()), **options)
