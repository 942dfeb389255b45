"""Exact AGM: its gradient by hand, the three padded passes, missing modalities, fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives, train
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _agm

from . import _modulated


def gradient(method, given, state=None):
  before, after, log = _modulated.one_step(method, given, state)
  return jax.tree.map(lambda a, b: a - b, before.params, after.params), after, log


def encoders(grads):
  return {k: v for k, v in grads.items() if k != "heads"}


def with_history(method, given, running):
  """The initial state, as after four steps with these mean scores."""
  state = train.initial(method, jax.random.key(0), given)
  old = state.memory["objective"]
  memory = old._replace(
    running={m: jnp.float32(v) for m, v in running.items()},
    steps={m: jnp.float32(4) for m in running},
  )
  return state._replace(memory={**state.memory, "objective": memory})


@pytest.mark.parametrize("zeros", ["constant", "gradient"])
def test_the_padded_passes_agree_without_norms_and_dropout(zeros):
  given, running = _modulated.batch(2), {"a": 2.0, "b": 0.5}
  got = []
  for padded in ("value", "exact", "shared"):
    method = METHODS["agm"](_modulated.model(2), tx=_modulated.plain(), padded=padded, zeros=zeros)
    got.append(gradient(method, given, with_history(method, given, running))[0])
  for other in got[1:]:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), got[0], other)


def test_no_strength_is_the_joint_loss():
  given = _modulated.batch(2)
  model = _modulated.model(2, "batch", 0.3)
  method = METHODS["agm"](model, tx=_modulated.plain(), alpha=0.0)
  joint = train.supervised(model, objectives.fused, _modulated.plain())
  state = with_history(method, given, {"a": 2.0, "b": 0.5})
  mine, _, log = gradient(method, given, state)
  theirs, _, plain = gradient(joint, given)
  np.testing.assert_allclose(log["loss/fused"], plain["loss/fused"], rtol=1e-6)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), mine, theirs)


def test_additive_head_and_silent_zeros_scale_the_encoders():
  """With biases of 0 a zero input has zero features: phi_m is the split logit of m."""
  given = _modulated.batch(2, full=True)
  method = METHODS["agm"](_modulated.model(2), tx=_modulated.plain(), alpha=0.7)
  joint = train.supervised(_modulated.model(2), objectives.fused, _modulated.plain())
  mine, after, _ = gradient(method, given, with_history(method, given, {"a": 2.0, "b": 0.5}))
  theirs = gradient(joint, given)[0]
  ks = after.memory["objective"].coefficients
  assert ks["a"] < 1 < ks["b"]
  for m in "ab":
    jax.tree.map(
      lambda x, y, m=m: np.testing.assert_allclose(x, ks[m] * y, rtol=1e-4, atol=1e-6),
      encoders(mine)[m],
      encoders(theirs)[m],
    )


def test_value_is_the_joint_loss_where_rows_lack_modalities():
  """The parts sum to the prediction of every row, whatever it has."""
  given = _modulated.batch(3)
  method = METHODS["agm"](_modulated.model(3), tx=_modulated.plain())
  joint = train.supervised(_modulated.model(3), objectives.fused, _modulated.plain())
  state = with_history(method, given, {"a": 2.0, "b": 0.5, "c": 1.0})
  _, _, log = _modulated.one_step(method, given, state)
  _, _, plain = _modulated.one_step(joint, given)
  np.testing.assert_allclose(log["loss/fused"], plain["loss/fused"], rtol=1e-5)


def test_modality_absent_from_the_whole_batch():
  given = _modulated.batch(2, absent=("b",))
  method = METHODS["agm"](_modulated.model(2, "batch"), tx=_modulated.plain())
  before, after, log = _modulated.one_step(
    method, given, with_history(method, given, {"a": 2.0, "b": 0.5})
  )
  memory = after.memory["objective"]
  assert log["finite"] and _modulated.finite(after.params)
  assert float(memory.running["b"]) == 0.5 and float(memory.steps["b"]) == 4
  np.testing.assert_allclose(list(memory.coefficients.values()), 1.0)
  for x, y in zip(jax.tree.leaves(before.params["b"]), jax.tree.leaves(after.params["b"])):
    np.testing.assert_array_equal(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("num", [1, 2, 3])
def test_fits_with_missing_entries(num):
  state, log = _modulated.fitted(METHODS["agm"](_modulated.model(num, "batch"), 0.1), num)
  losses = _modulated.fused_losses(log)
  assert _modulated.finite(state.params) and losses[-1] < losses[0]
  steps = state.memory["objective"].steps
  assert {float(v) for v in steps.values()} == {6.0}


@pytest.mark.slow
def test_the_light_form_fits():
  state, log = _modulated.fitted(METHODS["agm_light"](_modulated.model(2), 0.1, alpha=0.5))
  losses = _modulated.fused_losses(log)
  assert _modulated.finite(state.params) and losses[-1] < losses[0]
  assert "rule/coefficients/a" in log.history[-1]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"padded": "half"}, "padded must be one of"),
    ({"zeros": "half"}, "zeros must be one of"),
    ({"alpha": -1.0}, "alpha must be at least 0"),
    ({"clip": -1.0}, "above 0"),
  ],
)
def test_impossible_options(options, message):
  with pytest.raises(ValueError, match=message):
    METHODS["agm"](_modulated.model(2), **options)


def test_multilabel_is_defined_and_regression_is_not():
  given = _modulated.batch(2)
  label = jax.nn.one_hot(given.label, 3, dtype=jnp.int32)
  method = METHODS["agm"](_modulated.model(2), tx=_modulated.plain())
  _, after, log = _modulated.one_step(method, given._replace(label=label))
  assert log["finite"] and _modulated.finite(after.params)
  with pytest.raises(ValueError, match="regression"):
    train.initial(method, jax.random.key(0), given._replace(label=jnp.ones(given.label.shape)))


def test_too_many_modalities():
  with pytest.raises(Unavailable, match="at most 8"):
    _agm.agm_objective("abcdefghi")
