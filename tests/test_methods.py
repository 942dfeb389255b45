"""The index: every entry builds and takes a step, and says where it comes from."""

import dataclasses
import functools
import inspect
import pathlib

import jax
import numpy as np
import pytest
from _rows import SHALLOW, encoders_of, options, shape

import mmfuse
from mmfuse import encoders, fusion, methods, names, train
from mmfuse.core import Batch, Clock, Unavailable

KINDS = (
  "baseline",
  "modulator",
  "weighting",
  "aggregator",
  "objective",
  "forward",
  "data",
  "schedule",
  "head",
)
FIDELITY = ("baseline", "parity", "equations", "reconstructed")
NAMES = (
  "unimodal",
  "late_average",
  "joint",
  "uniform",
  "ogm",
  "ogm_ge",
  "mimo",
  "stch",
  "mmpareto",
  "mgda",
  "pcgrad",
  "cagrad",
  "bogc",
)


def _model(number: int, name: str = "") -> fusion.LateFusion:
  plain = encoders.MLP(features=3, hidden=())
  return fusion.LateFusion(encoders_of(name, "abc"[:number], plain), 2)


def _batch(modalities, name: str = "") -> Batch:
  """Six rows; with several modalities, each is absent from one of them."""
  rng, rows, several = np.random.default_rng(0), np.arange(6, dtype=np.int32), len(modalities) > 1
  of = shape(name, (2,))
  inputs = {m: rng.normal(size=(6, *of)).astype(np.float32) for m in modalities}
  mask = {m: rows != i if several else rows >= 0 for i, m in enumerate(modalities)}
  return Batch(inputs, rows % 2, mask, np.ones(6, np.float32), rows, {})


def _one_step(method, batch):
  """(state before, state after, metrics); `init` op by op, whose programs all entries share."""
  clock = Clock(*(np.int32(v) for v in (0, 0, 0, 1, 1)))
  key = jax.random.key(0)
  state = train.initial(method, key, batch)
  step = jax.jit(method.phases[-1].step, compiler_options={"xla_backend_optimization_level": 0})
  return jax.device_get((state, *step(state, batch, key, clock)))


def _distance(x, y) -> float:
  return max(float(np.abs(a - b).max()) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y)))


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
  assert set(entry.tasks) <= set(names.TASKS) and entry.tasks
  assert len(entry.grid) <= 1 and all(len(v) == 3 for v in entry.grid.values())
  without_paper = entry.kind == "baseline" or name in ("concat", "sum", "attention")
  assert (entry.cite == "") == (without_paper and not entry.alias_of)
  assert methods.citation(name) == entry.cite
  if entry.cite:
    assert entry.cite.startswith("@") and "title={" in entry.cite and "year={" in entry.cite
    assert entry.cite.count("{") == entry.cite.count("}")


# Of two modalities every row takes steps in tests/test_counted_rows.py; any number of objectives is
# tested for rules in tests/balancing.
STEPPED = [
  name
  for name, entry in methods.METHODS.items()
  if entry.kind not in ("head", "weighting", "aggregator") or name in ("mimo", "mmpareto")
]


ALONE = [  # other kinds meet a single modality in tests/methods and tests/objectives
  name for name in STEPPED if methods.METHODS[name].kind in ("baseline", "modulator")
]


# Greedy takes two alone; seven models are in tests/methods/missing/test_custom.py.
THREE = [n for n in STEPPED if n not in ("greedy", "custom")]


def _built(name, number):
  model = _model(number, name)
  return methods.METHODS[name](model, 0.1, **options(name)), _batch(sorted(model.modalities), name)


@pytest.mark.parametrize("name", THREE)
def test_a_step_on_three_modalities_can_be_traced_and_keeps_the_form_of_the_state(name):
  """Not compiled, which takes most of the time; its numbers are those of the slow test below."""
  method, batch = _built(name, 3)
  key, clock = jax.random.key(0), Clock(*(np.int32(v) for v in (0, 0, 0, 1, 1)))
  state = jax.eval_shape(functools.partial(train.initial, method), key, batch)
  new, metrics = jax.eval_shape(method.phases[-1].step, state, batch, key, clock)
  assert metrics["finite"].dtype == bool
  assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )


@pytest.mark.parametrize(
  "name, number",
  [*(pytest.param(n, 3, marks=pytest.mark.slow) for n in THREE), *((n, 1) for n in ALONE)],
)
def test_an_entry_builds_and_takes_one_step_with_finite_parameters(name, number):
  method, batch = _built(name, number)
  state, new, metrics = _one_step(method, batch)
  assert bool(metrics["finite"])
  for leaf in jax.tree.leaves(new.params):
    assert np.isfinite(leaf).all()
  assert _distance(new.params, state.params) > 0
  assert train.has_learning_rate(new.opt)


@pytest.mark.parametrize("name", ["mmpareto", "ogm"])
def test_a_modality_whose_encoder_has_no_parameters_is_no_obstacle(name):
  kinds = {"a": encoders.Identity(), "b": encoders.MLP(features=3, hidden=())}
  state, new, metrics = _one_step(
    methods.METHODS[name](fusion.LateFusion(kinds, 2), 0.1), _batch("ab")
  )
  assert new.params["a"] == {} and bool(metrics["finite"])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.params))
  assert _distance(new.params["b"], state.params["b"]) > 0


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("name", methods.HEADS)
def test_a_head_is_joint_with_that_fusion(name, number):
  model, own = _model(number), SHALLOW.get(name, {})
  batch = _batch(sorted(model.modalities))
  other = dataclasses.replace(model, fusion=dataclasses.replace(fusion.head_named(name), **own))
  key = jax.random.key(0)
  built = (methods.METHODS[name](model, 0.1, **own), methods.METHODS["joint"](other, 0.1))
  found, expected = (
    jax.eval_shape(functools.partial(train.initial, method), key, batch) for method in built
  )
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  assert jax.tree.leaves(found.params) == jax.tree.leaves(expected.params)


def test_a_head_takes_its_own_options_and_needs_a_fusion_to_replace():
  model = _model(2)
  shapes = lambda **options: {
    x.shape
    for x in jax.tree.leaves(
      jax.eval_shape(
        functools.partial(train.initial, methods.METHODS["low_rank"](model, **options)),
        jax.random.key(0),
        _batch(["a", "b"]),
      ).params
    )
  }
  assert (7, 4, 2) in shapes(rank=7) - shapes()
  assert "rank" in inspect.signature(methods.METHODS["low_rank"].build).parameters
  with pytest.raises(Unavailable, match="tensor replaces the fusion of a LateFusion"):
    methods.METHODS["tensor"](object())


def test_greedy_says_what_it_needs():
  for model, words in ((_model(3), "two modalities"), (_model(2), "mmtm")):
    with pytest.raises(Unavailable, match=words):
      methods.METHODS["greedy"](model)


def test_a_builder_takes_the_optimiser_it_is_given():
  model = _model(2)
  still = methods.METHODS["uniform"](model, 0.1, tx=train.sgd(0.0))
  batch = _batch(["a", "b"])
  state, new, _ = _one_step(still, batch)
  assert _distance(new.params, state.params) == 0


def test_unimodal_takes_the_modality_it_is_told_and_refuses_another():
  model = _model(2)
  method = methods.METHODS["unimodal"](model, 0.1, modality="b")
  state = jax.eval_shape(
    functools.partial(train.initial, method), jax.random.key(0), _batch(["a", "b"])
  )
  assert "b" in state.params and "a" not in state.params
  with pytest.raises(ValueError, match="'depth'"):
    methods.METHODS["unimodal"](model, 0.1, modality="depth")


def test_an_unknown_name_gets_the_closest_ones():
  with pytest.raises(ValueError, match=r"unknown method 'mimoo'; closest: mimo"):
    methods.get("mimoo")
  with pytest.raises(ValueError, match=r"unknown method 'qqqq'; available: unimodal, "):
    methods.citation("qqqq")


def test_a_paper_is_named_by_its_authors_venue_and_year():
  said = lambda name: methods.METHODS[name].paper
  assert said("agm") == "Li et al., ICCV 2023"
  assert said("mslr") == "Yao and Mihalcea, Findings of ACL 2022"
  assert said("product_of_experts") == "Hinton, Neural Computation 2002"
  assert said("bogc") == "Guo et al., arXiv 2505.23071, 2025"
  assert said("opm") == "Wei et al., TPAMI 2024"  # the entry writes the journal out
  assert said("mbsd") == "as in Xu et al., arXiv 2502.10816, 2025"


def test_inter_is_joint_by_another_name():
  inter, joint = methods.get("inter"), methods.get("joint")
  assert inter.alias_of == "joint" and inter.build is joint.build
  assert methods.citation("inter") == methods.citation("i2m2") != methods.citation("joint")


def test_a_builder_that_needs_the_rate_is_told_it():
  told = []

  def build(model, tx, *, learning_rate=1.0, size=1):
    told.append((learning_rate, size))
    return methods.METHODS["joint"].build(model, tx)

  methods.Entry(build, needs=("learning_rate",))(_model(2), 0.2, size=3)
  methods.Entry(build)(_model(2), 0.2)
  assert told == [(0.2, 3), (1.0, 1)]


def test_a_bare_builder_of_a_rate_is_an_entry_too():
  told = []

  def build(model, learning_rate, *, size=1):
    told.append((learning_rate, size))
    return methods.METHODS["joint"](model, learning_rate)

  entry = methods.of_rate(build)
  entry(_model(2), 0.2, tx=train.sgd(0.5), size=3)
  assert told == [(0.2, 3)] and "size" in inspect.signature(entry.build).parameters
