"""Four virtual devices give the gradients and metrics of one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from mmfuse import balancing, objectives, tasks, train
from mmfuse.train import _plan, _programs, _run

from ._problems import QUICK, clock, late_fusion, plain, tiny

RULES = {
  "joint": (objectives.fused, lambda tx: tx, None),
  "mimo": (objectives.fused_and_unimodal, lambda tx: tx, balancing.mimo(3)),
  "ogm_ge": (objectives.fused, lambda tx: optax.chain(balancing.ogm_ge(alpha=0.3), tx), None),
  "mmpareto": (objectives.fused_and_unimodal, lambda tx: tx, balancing.mmpareto(3)),
}


@pytest.fixture(scope="module")
def mesh():
  return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture(scope="module")
def splits():
  return tiny()


def method(name):
  objective, wrap, aggregator = RULES[name]
  return train.supervised(
    late_fusion(2, "batch", 0.0), objective, wrap(plain()), aggregator=aggregator
  )


@pytest.mark.parametrize("name", RULES)
def test_gradients_are_those_of_one_device(name, mesh, splits):
  built, moved = method(name), {}
  rows = np.arange(8, dtype=np.int32)
  keep = {m: np.ones(8, bool) for m in ("a", "b")}
  for where in (None, mesh):
    plan = _plan.make_plan(built, splits, epochs=1, batch_size=8, mesh=where)
    group = _run.Group(plan, [(0, None)])
    state = group.initial()
    before = jax.device_get(state.params)
    if where is not None:
      assert len(jax.tree.leaves(state.params)[0].devices()) == 4
    arguments = (state, group.arrays, rows, keep, jax.random.key(1), clock())
    step = _programs._step_jit.lower(built.phases[0].step, where, False, *arguments)
    after, log = step.compile(compiler_options=QUICK)(*arguments)
    moved[where is None] = jax.tree.map(np.subtract, before, jax.device_get(after.params))
    assert bool(log["finite"])
  size = float(optax.tree.norm(moved[True]))
  assert size > 0.1
  assert float(optax.tree.norm(jax.tree.map(np.subtract, moved[True], moved[False]))) < 1e-5 * max(
    size, 1.0
  )


def test_fit_gives_the_same_metrics(mesh, splits):
  built = train.supervised(late_fusion(2, "batch", 0.0), tx=train.sgd(0.05))
  options = {"epochs": 2, "batch_size": 8, "loop": "scan", "diagnose": False}
  one, four = train.fit(built, splits, **options), train.fit(built, splits, mesh=mesh, **options)
  for a, b in zip(one.logs[0].history, four.logs[0].history, strict=True):
    assert a["loss/fused"] == pytest.approx(b["loss/fused"], abs=1e-4)
    for head in ("fused", "a", "b"):
      assert a["validation"][head]["accuracy"] == b["validation"][head]["accuracy"]
  metric = tasks.metric("classification", 3)
  assert train.evaluate(
    built, jax.tree.map(jnp.asarray, four.state(0)), splits.validation, metric=metric
  )


def test_a_batch_that_does_not_split_is_refused(mesh, splits):
  with pytest.raises(
    ValueError, match="batch_size 6 of phase 'train' does not split over 4 devices"
  ):
    train.fit(method("joint"), splits, epochs=1, batch_size=6, mesh=mesh)
