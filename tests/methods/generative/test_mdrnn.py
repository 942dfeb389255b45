"""The builders: what a step moves, the schedules, and that training predicts better."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data
from mmfuse import train as train_lib
from mmfuse.core import Batch, Clock
from mmfuse.methods import generative
from mmfuse.methods.generative import mrbm
from mmfuse.methods.generative.mrbm import _ascent


def batch(rows=32):
  rng = np.random.default_rng(0)
  bits = jnp.asarray(rng.integers(0, 2, (rows, 4)), jnp.float32)
  mask = {m: jnp.ones(rows, bool) for m in "ab"}
  return Batch({"a": bits, "b": 1 - bits}, None, mask, jnp.ones(rows), jnp.arange(rows))


def train(method, steps):
  rows, phase = batch(), method.phases[0]
  state = phase.begin(
    train_lib.initial(method, jax.random.key(0), rows), {"train": rows}, jax.random.key(1), None
  )
  step = jax.jit(phase.step)
  for i in range(steps):
    clock = Clock(*(jnp.int32(n) for n in (i, i, 0, 1, steps)))
    state, _ = step(state, rows, jax.random.key(i), clock)
  assert step._cache_size() == 1  # the schedules are traced
  return state


@pytest.mark.slow
@pytest.mark.parametrize(
  ("method", "steps"),
  [
    (generative.mdrnn(16, 0.5, decay=0.0, sparsity_weight=0.0), 300),
    # Likelihood is a longer way to the same conditional.
    (generative.mdrnn(16, 0.2, "pcd", decay=0.0, chains=20, kcd=2, sparsity_weight=0.0), 2000),
    (generative.mdrnn(16, 0.3, "cdpl", decay=0.0, kcd=2, sparsity_weight=0.0), 600),
  ],
  ids=["mp", "pcd", "cdpl"],
)
def test_the_other_modality_is_predicted(method, steps):
  state, rows = train(method, steps), batch()
  mask = {"a": rows.mask["a"], "b": jnp.zeros_like(rows.mask["b"])}
  outputs = method.predict(state, rows.inputs, mask)
  guess = outputs.aux["reconstructions"]["b"] > 0.5
  assert float(jnp.mean(guess == (rows.inputs["b"] > 0.5))) > 0.9  # chance: .5
  assert outputs.features["hidden"].shape == (32, 16)


def one_step(objective, key, rows=None, **options):
  """(state before, state after) one step of epoch 40, where the schedules have grown."""
  rows = batch() if rows is None else rows
  settings = {"chains": 6, "kcd": 3, "reveal": 0.1, "sparsity_weight": 0.1, "sparsity_target": 0.1}
  method = generative.mdrnn(4, 0.5, objective, **{**settings, **options})
  phase = method.phases[0]
  state = phase.begin(
    train_lib.initial(method, jax.random.key(0), rows), {"train": batch()}, jax.random.key(1), None
  )
  clock = Clock(*(jnp.int32(n) for n in (0, 40, 0, 1, 50)))
  return state, jax.jit(phase.step)(state, rows, key, clock)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "objective", "half"), [(1.0, "mp", 0), (0.0, "pcd", 1)])
def test_the_ends_of_the_hybrid_are_multi_prediction_and_likelihood(alpha, objective, half):
  key = jax.random.key(2)
  start, found = one_step("hybrid", key, alpha=alpha)
  _, want = one_step(objective, jax.random.split(key)[half])
  _, between = one_step("hybrid", key, alpha=0.5)
  same = lambda a, b: jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a, b
  )
  same((found.params, found.opt), (want.params, want.opt))
  for name, kept in want.memory.items():
    same(found.memory[name], kept)
  assert float(jnp.abs(found.params["a"]["kernel"] - start.params["a"]["kernel"]).max()) > 1e-3
  assert float(jnp.abs(found.params["a"]["kernel"] - between.params["a"]["kernel"]).max()) > 1e-4


@pytest.mark.parametrize("objective", mrbm.RECIPES)
def test_a_batch_without_a_complete_row_moves_nothing(objective):
  rows = batch()
  rows = rows._replace(
    mask={**rows.mask, "b": jnp.zeros_like(rows.mask["b"])},
    inputs={**rows.inputs, "b": jnp.full((32, 4), jnp.nan)},
  )
  start, found = one_step(objective, jax.random.key(2), rows)
  jax.tree.map(np.testing.assert_array_equal, found, start)


def test_recipes_are_those_of_the_authors():
  table = mrbm.RECIPES
  assert {k: (r.sparsity_weight, r.sparsity_target) for k, r in table.items()} == {
    "mp": (0.1, 0.1),
    "pcd": (0.3, 0.05),
    "cdpl": (0.1, 0.1),
    "hybrid": (0.1, 0.1),
  }
  assert {(r.decay, r.l2, r.steps, r.nstop, r.kcd, r.chains) for r in table.values()} == {
    (0.005, 1e-4, 5, 5, 10, 500)
  }
  assert (table["mp"].reveal, table["hybrid"].reveal, table["hybrid"].alpha) == (0.25, 0.1, 0.5)
  with pytest.raises(ValueError, match="unknown objective 'ml'; expected one of: mp, pcd, cdpl"):
    generative.mdrnn(4, objective="ml")
  with pytest.raises(ValueError, match="a recipe has no 'share'; it has: decay, l2"):
    generative.mdrnn(4, share=0.5)


def test_schedules():
  found = [int(_ascent.growing(jnp.int32(e), 5, 20)) for e in (0, 19, 20, 200)]
  assert found == [1, 1, 2, 5]
  assert float(_ascent.momentum_of(jnp.int32(4))) == pytest.approx(0.33)
  assert float(_ascent.momentum_of(jnp.int32(5))) == pytest.approx(0.47)
  assert float(_ascent.rate_of(jnp.int32(0), 0.01, 0.005)) == pytest.approx(0.01 / 1.005)


def test_a_step_that_would_give_nan_is_skipped():
  state = train_lib.initial(generative.mdrnn(4), jax.random.key(0), batch())
  wrong = jax.tree.map(lambda g: jnp.full_like(g, jnp.nan), state.params)
  nothing, clock = (
    jax.tree.map(jnp.zeros_like, wrong),
    Clock(*(jnp.int32(n) for n in (0, 0, 0, 1, 1))),
  )
  opt = state.opt["train"]
  params, opt = _ascent.ascend(state.params, opt, wrong, nothing, clock, 0.0)
  assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((params, opt)))
  np.testing.assert_array_equal(params["a"]["kernel"], state.params["a"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("objective", mrbm.RECIPES)
def test_fit_trains_it_without_validation(objective):
  """To the last epoch, from visible biases of all training rows and not of the first batch."""
  rows = batch(40)
  split = data.Split(
    {m: np.asarray(x) for m, x in rows.inputs.items()},
    np.zeros(40, np.int32),
    {m: np.ones(40, bool) for m in "ab"},
    np.arange(40, dtype=np.int32),
    None,
  )
  splits = types.SimpleNamespace(
    train=split, validation=None, task="classification", num_outputs=2, fingerprint=""
  )
  method = generative.mdrnn(4, objective=objective, chains=6)
  found = train_lib.fit(method, splits, epochs=2, batch_size=20)
  assert found.logs[0].selected_epoch == 1 and found.logs[0].diverged_at is None
  first = method.phases[0].begin(
    train_lib.initial(method, jax.random.key(0), rows), {"train": split}, jax.random.key(0), None
  )
  mean = np.clip(split.inputs["a"].mean(0), 0.01, 0.99)
  np.testing.assert_allclose(first.params["a"]["bias"], np.log(mean / (1 - mean)), atol=1e-5)
  assert set(first.memory) == set(found.state().memory)
