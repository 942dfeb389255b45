"""The index: every entry builds and takes a step, and says where it comes from."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmfuse
from mmfuse import encoders, fusion, methods, train
from mmfuse.core import Batch, Clock, Outputs

KINDS = ("baseline", "modulator", "weighting", "aggregator")
FIDELITY = ("baseline", "parity", "equations", "reconstructed")
NAMES = ("unimodal", "late_average", "joint", "uniform", "ogm", "ogm_ge", "mimo", "stch", "mmpareto",
         "mgda", "pcgrad", "cagrad", "bogc")  # fmt: skip


def _model(number: int) -> fusion.LateFusion:
  names = "abc"[:number]
  return fusion.LateFusion({m: encoders.MLP(features=3, hidden=()) for m in names}, 2)


def _batch(modalities) -> Batch:
  rng = np.random.default_rng(0)
  inputs = {m: jnp.asarray(rng.normal(size=(6, 2)), jnp.float32) for m in modalities}
  mask = {m: jnp.arange(6) != i for i, m in enumerate(modalities)}
  if len(modalities) == 1:
    mask = {m: jnp.ones(6, bool) for m in modalities}
  return Batch(inputs, jnp.arange(6) % 2, mask, jnp.ones(6), jnp.arange(6), {})


def test_the_index_holds_the_names_of_the_first_issue_and_default_runs_them_all():
  assert set(NAMES) <= set(methods.METHODS)
  assert set(methods.DEFAULT) <= set(methods.METHODS)
  assert {"unimodal", "late_average", "joint", "uniform"} <= set(methods.DEFAULT)
  assert len(methods.SMOKE) == 3


@pytest.mark.parametrize("name", methods.METHODS)
def test_an_entry_has_every_field(name):
  entry = methods.METHODS[name]
  assert entry.kind in KINDS and entry.fidelity in FIDELITY
  assert entry.family and entry.paper
  assert (pathlib.Path(mmfuse.__file__).parent / entry.file).is_file()
  assert entry.build.__doc__
  assert set(entry.tasks) <= set(methods.ALL_TASKS) and entry.tasks
  assert len(entry.grid) <= 1 and all(len(v) == 3 for v in entry.grid.values())
  assert (entry.cite == "") == (entry.kind == "baseline")
  assert methods.citation(name) == entry.cite
  if entry.cite:
    assert entry.cite.startswith("@") and "title={" in entry.cite and "year={" in entry.cite
    assert entry.cite.count("{") == entry.cite.count("}")


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", methods.METHODS)
def test_an_entry_builds_and_takes_one_step_with_finite_parameters(name, number):
  model = _model(number)
  method = methods.METHODS[name](model, 0.1)
  batch = _batch(sorted(model.modalities))
  state = method.init(jax.random.key(0), batch)
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  step = method.phases[0].step
  new, metrics = jax.jit(step)(state, batch, jax.random.key(1), clock)
  assert bool(metrics["finite"])
  for leaf in jax.tree.leaves(new.params):
    assert bool(jnp.isfinite(leaf).all())
  moved = optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params))
  assert float(moved) > 0
  assert train.has_learning_rate(new.opt)


def test_a_builder_takes_the_optimiser_it_is_given():
  model = _model(2)
  still = methods.METHODS["uniform"](model, 0.1, tx=train.sgd(1e-30))
  batch = _batch(["a", "b"])
  state = still.init(jax.random.key(0), batch)
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  new, _ = still.phases[0].step(state, batch, jax.random.key(1), clock)
  assert float(optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params))) == 0


def test_unimodal_takes_the_modality_it_is_told_and_refuses_another():
  model = _model(2)
  method = methods.METHODS["unimodal"](model, 0.1, modality="b")
  assert "a" not in method.init(jax.random.key(0), _batch(["a", "b"])).params
  with pytest.raises(ValueError, match="'depth'"):
    methods.METHODS["unimodal"](model, 0.1, modality="depth")


def test_late_average_of_classes_is_the_mean_probability_of_the_present_modalities():
  logits = {"a": jnp.log(jnp.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2]])),
            "b": jnp.log(jnp.array([[0.4, 0.6], [0.4, 0.6], [0.4, 0.6]]))}  # fmt: skip
  mask = {"a": jnp.array([True, True, False]), "b": jnp.array([True, False, False])}
  mean = methods.average_predictions(Outputs(None, logits, {}, {}), mask).logits
  np.testing.assert_allclose(np.exp(mean), [[0.6, 0.4], [0.8, 0.2], [1.0, 1.0]], rtol=1e-6)


def test_late_average_of_values_is_the_mean_of_the_present_modalities():
  values = {"a": jnp.array([[2.0], [2.0], [2.0]]), "b": jnp.array([[6.0], [6.0], [6.0]])}
  mask = {"a": jnp.array([True, True, False]), "b": jnp.array([True, False, False])}
  mean = methods.average_logits(Outputs(None, values, {}, {}), mask).logits
  np.testing.assert_allclose(mean, [[4.0], [2.0], [0.0]])


def test_an_unknown_name_gets_the_closest_ones():
  with pytest.raises(ValueError, match=r"unknown method 'mimoo'; closest: mimo"):
    methods.get("mimoo")
  with pytest.raises(ValueError, match=r"unknown method 'qqqq'; available: unimodal, "):
    methods.citation("qqqq")
