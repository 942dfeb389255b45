"""What a method is, beyond shapes: told apart within a process, found again in another."""

import functools
import os
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmfuse import fusion, methods, objectives, train
from mmfuse.train import _identity
from mmfuse.train._identity import INITIAL, METHOD, differing, marks, method_digest

from ._problems import batch, late_fusion, tiny


class Net(nn.Module):
  """An encoder whose activation no shape shows."""

  act: str = "relu"
  scale: float = 1.0

  @nn.compact
  def __call__(self, x, mask, *, train):
    init = nn.initializers.variance_scaling(self.scale, "fan_in", "normal")
    return getattr(nn, self.act)(nn.Dense(3, kernel_init=init)(x))


def _net(**options):
  return fusion.LateFusion({m: Net(**options) for m in "ab"}, 3)


def _joint(model=None, tx=None):
  return train.supervised(model or _net(), objectives.fused, tx or train.sgd(0.03))


def _digest(method):
  given = batch(2)
  return method_digest(method, train.initial(method, jax.random.key(0), given), given)


def _hooked(value, name="begin"):
  """`joint` with a hook that closes over a value."""

  def hook(state, splits, key, clock):
    del splits, key, clock
    return state._replace(params=jax.tree.map(lambda p: p * value, state.params))

  method = _joint()
  return method._replace(phases=(method.phases[0]._replace(**{name: hook}),))


def _number(scaled):
  """`joint` with a hook whose number stands in its body."""
  if scaled:

    def hook(state, splits, key, clock):
      return jax.tree.map(lambda p: p * 0.5, state)
  else:

    def hook(state, splits, key, clock):
      return jax.tree.map(lambda p: p * 0.25, state)

  method = _joint()
  return method._replace(phases=(method.phases[0]._replace(epoch_end=hook),))


PAIRS = {
  "rule": (_joint, lambda: methods.METHODS["uniform"](_net(), 0.03)),
  "hyper-parameter": tuple(
    functools.partial(methods.METHODS["mimo"], late_fusion(2, "none"), 0.03, lam=v)
    for v in (1.0, 2.0)
  ),
  "activation": (_joint, lambda: _joint(_net(act="tanh"))),
  "momentum": (_joint, lambda: _joint(tx=train.sgd(0.03, momentum=0.5))),
  "weight decay": (
    lambda: _joint(tx=train.sgd(0.03, weight_decay=0.1)),
    lambda: _joint(tx=train.sgd(0.03, weight_decay=0.2)),
  ),
  "value of a hook": (lambda: _hooked(0.9), lambda: _hooked(0.8)),
  "place of a hook": (lambda: _hooked(0.9), lambda: _hooked(0.9, "epoch_end")),
  "number in a hook": (lambda: _number(True), lambda: _number(False)),
}


@pytest.mark.parametrize("what", PAIRS)
def test_methods_of_equal_shapes_are_told_apart(what):
  one, other = (make() for make in PAIRS[what])
  given = batch(2)
  shapes = [
    jax.tree.map(
      lambda x: (x.shape, x.dtype),
      jax.eval_shape(functools.partial(train.initial, m), jax.random.key(0), given),
    )
    for m in (one, other)
  ]
  if what != "rule":
    assert shapes[0] == shapes[1]
  assert _digest(one) != _digest(other)
  assert _digest(one) == _digest(PAIRS[what][0]())  # built again


def test_a_rate_in_the_state_is_no_part_of_the_program_but_of_the_initial_values():
  one, other = _joint(), _joint(tx=train.sgd(0.1))
  assert _digest(one) == _digest(other)
  start = lambda m: marks(train.initial(m, jax.random.key(0), batch(2)))
  there, mine = ({METHOD: "x", INITIAL: start(m)} for m in (one, other))
  assert differing(there, mine) == [INITIAL] and differing(mine, mine) == []


def test_the_rate_of_a_method_that_a_hook_builds_on_is_no_part_of_it_either():
  steps = [_joint(tx=train.sgd(rate)).phases[0].step for rate in (0.03, 0.5)]
  assert _identity._hook(steps[0]) == _identity._hook(steps[1])


def test_initial_values_of_another_scale_differ_and_rounding_does_not():
  start = lambda m: marks(train.initial(m, jax.random.key(0), batch(2)))
  mine = {METHOD: "x", INITIAL: start(_joint())}
  other = {METHOD: "x", INITIAL: start(_joint(_net(scale=2.0)))}
  assert differing(other, mine) == [INITIAL]
  state = train.initial(_joint(), jax.random.key(0), batch(2))
  near = jax.tree.map(lambda x: x * np.float32(1 + 1e-7), state)
  assert differing({METHOD: "x", INITIAL: marks(near)}, mine) == []
  assert differing({"epochs": 1}, {"epochs": 1, **mine}) == [METHOD]  # from before there was one
  assert differing({"epochs": 2}, {"epochs": 1, **mine}) == ["epochs"]


def test_marks_by_hand():
  state = {"w": np.array([1.0, -2.0], np.float32), "n": np.array([np.nan, np.inf])}
  (nan, inf), (size, wave) = marks(state)
  assert (size, wave) == (1.5, pytest.approx((1 - 2 * np.cos(1)) / 2))
  assert (nan, inf) == (1.5, pytest.approx((-1 + 2 * np.cos(1)) / 2))


def test_a_jaxpr_is_read_without_names_and_with_its_constants():
  big = np.arange(3.0)

  def f(constant):
    inner = jax.jit(lambda x: x * constant)
    return _identity.jaxpr_digest(jax.make_jaxpr(lambda x: inner(x) + inner(x))(np.ones(3)))

  assert f(big) == f(big.copy()) != f(big + 1)
  assert f(2.0) == f(2.0) != f(3.0)
  renamed = jax.make_jaxpr(lambda y: y + 1)(1.0)
  assert _identity.jaxpr_digest(renamed) == _identity.jaxpr_digest(
    jax.make_jaxpr(lambda z: z + 1)(1.0)
  )


AGAIN = ("hyper-parameter", "value of a hook")
SCRIPT = """
import jax
from tests.train import test_identity as t
print(*[t._digest(make()) for what in t.AGAIN for make in t.PAIRS[what]])
"""


def test_another_process_finds_the_same():
  here = [_digest(make()) for what in AGAIN for make in PAIRS[what]]
  env = {**os.environ, "PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"}
  there = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=env)
  assert there.stdout.split() == here, there.stderr


def test_joint_in_the_folder_of_uniform_is_refused(tmp_path):
  """Same shapes, seeds, rate and data: it once returned the parameters of the other."""
  model, splits = _net(), tiny()
  options = {
    "epochs": 1,
    "batch_size": 8,
    "seeds": 2,
    "diagnose": False,
    "checkpoint_seconds": 0.0,
    "checkpoint_dir": str(tmp_path / "run"),
    "learning_rate": 0.03,
  }
  train.fit(_joint(model), splits, **options)
  uniform = methods.METHODS["uniform"](model, 0.03)
  with pytest.raises(ValueError, match="method or its constants differ; use another folder"):
    train.fit(uniform, splits, **options)
  train.fit(_joint(model, train.sgd(0.5)), splits, **options)  # the rate is given: the same run
  with pytest.raises(ValueError, match="initial values differ"):
    train.fit(_joint(_net(scale=2.0)), splits, **options)
