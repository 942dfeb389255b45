"""PMR: prototypes between epochs, the one-sided loss, missing modalities and classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives, train
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _pmr

from . import _modulated


def started(num=2, **options):
  """(method, its state after `begin`)."""
  method = METHODS["pmr"](_modulated.model(num), tx=_modulated.plain(), **options)
  given = _modulated.splits(num)
  state = train.initial(method, jax.random.key(0), _modulated.batch(num))
  return (
    method,
    method.phases[0].begin(state, _modulated.hooks(given), jax.random.key(1), _modulated.hour()),
    given,
  )


def test_prototypes_are_class_means_of_chosen_rows():
  """48 rows in one batch are less than ten batches: all rows, at first without momentum."""
  method, state, given = started()
  outputs = train.predict_split(method, state, given.train)
  memory = state.memory["objective"]
  for m in "ab":
    for c in range(_modulated.CLASSES):
      rows = (given.train.label == c) & given.train.mask[m]
      np.testing.assert_allclose(
        memory["prototypes"][m][c], outputs.features[m][rows].mean(0), atol=1e-5
      )
  moved = memory["prototypes"]["a"] + 1.0
  old = {**memory, "prototypes": {**memory["prototypes"], "a": moved}}
  state = state._replace(memory={**state.memory, "objective": old})
  after = method.phases[0].epoch_end(
    state, _modulated.hooks(given), jax.random.key(2), _modulated.hour()
  )
  np.testing.assert_allclose(
    after.memory["objective"]["prototypes"]["a"], memory["prototypes"]["a"] + 0.2, atol=1e-5
  )


def test_the_first_tenth_of_the_batches_is_used(monkeypatch):
  counted = []
  monkeypatch.setattr(
    _pmr.train,
    "on_batch",
    lambda function, state, batch: (
      counted.append(float(batch.weight.sum())) or {"a": (jnp.zeros((3, 4)), jnp.zeros(3))}
    ),
  )
  method = METHODS["pmr"](_modulated.model(1), batch_size=2)
  state = train.initial(method, jax.random.key(0), _modulated.batch(1))
  method.phases[0].begin(
    state, _modulated.hooks(_modulated.splits(1)), jax.random.key(1), _modulated.hour()
  )
  assert counted == [2.0, 2.0]  # 24 batches


def test_one_side_gets_the_prototype_loss():
  _, state, _ = started()
  given = _modulated.batch(2)
  method = METHODS["pmr"](_modulated.model(2), tx=_modulated.plain(), alpha=0.5)
  _, after, log = _modulated.one_step(method, given, state)
  extra = [float(log["loss/prototype/a"]), float(log["loss/prototype/b"])]
  assert min(extra) == 0 < max(extra) and log["finite"]
  joint = train.supervised(_modulated.model(2), objectives.fused, _modulated.plain())
  _, plain, joint_log = _modulated.one_step(joint, given)
  np.testing.assert_allclose(log["loss/fused"], joint_log["loss/fused"], rtol=1e-6)
  lagging, ahead = ("a", "b") if extra[0] > 0 else ("b", "a")
  np.testing.assert_allclose(
    after.params[ahead]["dense0"]["kernel"], plain.params[ahead]["dense0"]["kernel"], atol=1e-6
  )
  assert not np.allclose(
    after.params[lagging]["dense0"]["kernel"], plain.params[lagging]["dense0"]["kernel"], atol=1e-4
  )


@pytest.mark.parametrize(
  "change",
  [
    lambda s: s,  # no prototypes yet
    lambda s: {**s, "seen": {m: jnp.array([True, False, True]) for m in s["seen"]}},
  ],
)
def test_classes_without_prototypes_are_left_out(change):
  method = METHODS["pmr"](_modulated.model(2), tx=_modulated.plain())
  given = _modulated.batch(2, absent=("b",))
  state = train.initial(method, jax.random.key(0), given)
  memory = {**state.memory, "objective": change(state.memory["objective"])}
  _, after, log = _modulated.one_step(method, given, state._replace(memory=memory))
  assert log["finite"] and _modulated.finite(after.params)
  assert (
    float(log["loss/prototype/a"]) == float(log["loss/prototype/b"]) == 0
  )  # no one else is there


def test_outside_the_window_there_is_the_joint_loss():
  method, state, _ = started(end_epoch=1)
  _, _, log = _modulated.one_step(method, _modulated.batch(2), state, _modulated.clock(epoch=2))
  assert float(log["loss/prototype/a"]) == float(log["loss/prototype/b"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("num", [1, 2, 3])
def test_fits_with_missing_entries(num):
  state, log = _modulated.fitted(METHODS["pmr"](_modulated.model(num), 0.1), num)
  losses = _modulated.fused_losses(log)
  assert _modulated.finite((state.params, state.memory)) and losses[-1] < losses[0]


@pytest.mark.parametrize(
  ("options", "message"),
  [({"alpha": -1.0}, "alpha"), ({"momentum": 1.0}, "momentum"), ({"batch_size": 0}, "batch_size")],
)
def test_impossible_options(options, message):
  with pytest.raises(ValueError, match=message):
    METHODS["pmr"](_modulated.model(2), **options)


def test_labels_must_be_classes():
  given = _modulated.batch(2)
  with pytest.raises(ValueError, match="one class per row"):
    train.initial(
      METHODS["pmr"](_modulated.model(2)),
      jax.random.key(0),
      given._replace(label=jnp.ones(given.label.shape)),
    )
