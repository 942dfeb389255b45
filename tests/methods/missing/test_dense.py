"""The rows of a segmentation keep the contract of a method; the dense parts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, encoders, fusion, methods, train
from mmfuse.core import Batch, Clock, Outputs, Unavailable
from mmfuse.methods.missing import _mining, _mmanet
from mmfuse.methods.missing._branch import BRANCH
from mmfuse.methods.missing._dmrnet import Decoupled
from mmfuse.methods.missing._shaspec_dense import present_mean
from mmfuse.names import SEGMENTATION

NAMES = ("a", "b")
ROWS = ("unimodal", "joint", "uniform", "dropout", "shaspec", "dmrnet", "mmanet")


@pytest.fixture(scope="module")
def splits():
  rng, rows = np.random.default_rng(0), 24
  a = rng.normal(size=(rows, 5, 6))
  arrays = {"a": a, "b": rng.normal(size=(rows, 5, 6, 2)), "mask_a": np.arange(rows) % 5 > 0}
  label = np.where(a > 1.5, -1, (a > 0).astype(int))
  return data.from_arrays({**arrays, "label": label})


def model(norm="instance"):
  unets = dict.fromkeys(NAMES, encoders.UNet(width=2, levels=2, norm=norm))
  return fusion.DenseFusion(unets, 2, encoders.UNetDecoder(2, width=2, norm=norm))


def test_the_rows_of_a_segmentation():
  found = {n for n, e in methods.METHODS.items() if SEGMENTATION in e.tasks and not e.alias_of}
  assert found == set(ROWS) == set(methods.DEFAULT_OF[SEGMENTATION])


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_every_row_keeps_the_contract(name, splits):
  entry = methods.METHODS[name]
  options = {"task": SEGMENTATION} if "task" in entry.needs else {}
  options |= {"modality": "b"} if entry.per_modality else {}
  train.check_method(entry(model(), tx=train.adam(1e-3), **options), splits)


@pytest.mark.parametrize("name", ["dmrnet", "shaspec"])
def test_a_step_of_the_dense_forms_is_finite_and_moves_what_it_should(name, splits):
  method = methods.METHODS[name](model(), tx=train.adam(1e-2))
  batch = train.to_batch(splits.train)
  state = train.initial(method, jax.random.key(0), batch, len(splits.train))
  clock = Clock(*(jnp.int32(v) for v in (8, 8, 0, 1, 20)))
  after, log = jax.jit(method.phases[0].step)(state, batch, jax.random.key(1), clock)
  assert all(np.isfinite(v).all() for v in jax.tree.leaves((after.params, log)))
  moved = jax.tree.map(lambda x, y: bool((x != y).any()), state.params, after.params)
  assert all(any(jax.tree.leaves(moved[m])) for m in NAMES)
  said = {"dmrnet": ("loss/kl", "loss/hcr"), "shaspec": ("loss/alignment", "loss/domain")}[name]
  assert all(log[k] > 0 for k in said)


def dense_batch(mask, label):
  rows = len(label)
  there = {m: jnp.asarray(v) for m, v in mask.items()}
  return Batch({}, jnp.asarray(label), there, jnp.ones(rows), jnp.arange(rows), {}, None)


def test_the_hard_term_of_maps_is_the_second_decoders_over_hard_rows():
  rng = np.random.default_rng(0)
  label = rng.integers(-1, 2, (3, 2, 2))
  batch = dense_batch({"a": [True, True, False], "b": [True, False, True]}, label)
  main, second = (jnp.asarray(rng.normal(size=(3, 2, 2, 2)), jnp.float32) for _ in range(2))
  mu = logvar = jnp.zeros((3, 1, 1, 4))
  outputs = Outputs(main, aux={"mu": mu + 1.0, "logvar": logvar, BRANCH: second})
  losses = Decoupled(1e-3, 0.5, "variance", 1, (True, True, False), 6, "intended", False)
  memory = losses.init(batch, outputs)
  clock = Clock(*(jnp.int32(v) for v in (0, 9, 0, 1, 20)))
  found, _ = losses.apply(outputs, batch, memory, clock=clock)
  log_p = jax.nn.log_softmax(second)
  each = [-log_p[i, y, x, label[i, y, x]] for i in (1, 2) for y in (0, 1) for x in (0, 1)]
  known = [label[i, y, x] >= 0 for i in (1, 2) for y in (0, 1) for x in (0, 1)]
  expected = 0.5 * np.mean([v for v, k in zip(each, known) if k])
  assert float(found["hcr"]) == pytest.approx(float(expected), rel=1e-5)
  assert float(found["kl"]) == pytest.approx(1e-3 * 0.5 * 4)  # half of mu^2, four channels
  warm = clock._replace(epoch=jnp.int32(0))
  assert losses.apply(outputs, batch, memory, clock=warm)[0]["hcr"] == 0.0


def test_of_maps_all_incomplete_subsets_are_hard_unless_said_otherwise(splits):
  method = methods.METHODS["dmrnet"](model(), tx=train.adam(1e-3))
  batch = train.to_batch(splits.train)
  state = jax.eval_shape(lambda: train.initial(method, jax.random.key(0), batch, len(splits.train)))
  assert state.memory["objective"]["hard"].shape == (3,)
  assert "second" in state.params["heads"]["fused"] and "gaussian" in state.params["heads"]["fused"]
  with pytest.raises(Unavailable, match="hcr='released' is none"):
    methods.METHODS["dmrnet"](model(), tx=train.adam(1e-3), hcr="released")


def test_skips_of_shaspec_are_means_over_what_is_present():
  maps = {"a": jnp.full((3, 1, 1, 2), 1.0), "b": jnp.full((3, 1, 1, 2), 3.0)}
  mask = {"a": jnp.array([True, True, False]), "b": jnp.array([True, False, False])}
  np.testing.assert_array_equal(present_mean(maps, mask)[:, 0, 0, 0], [2.0, 1.0, 0.0])


def test_shaspec_shares_one_encoder_of_maps_that_are_alike():
  unlike = {"a": encoders.UNet(width=2, levels=2), "b": encoders.UNet(width=4, levels=2)}
  net = fusion.DenseFusion(unlike, 2, encoders.UNetDecoder(2, width=2))
  with pytest.raises(Unavailable, match="are not alike"):
    methods.METHODS["shaspec"](net, tx=train.adam(1e-3))


def test_mmanet_distils_the_coarsest_maps_and_the_fused_ones_between():
  rng = np.random.default_rng(0)
  scales = [(8, 8, 2), (4, 4, 3), (2, 2, 4)]
  maps = {m: tuple(jnp.asarray(rng.normal(size=(2, *s))) for s in scales) for m in NAMES}
  outputs = Outputs(None, features=maps, aux={"latent": jnp.zeros((2, 2, 2, 5))})
  found = _mmanet.fused_maps(outputs, {m: jnp.ones(2, bool) for m in NAMES})
  assert [x.shape for x in found] == [(2, 2, 2, 5), (2, 4, 4, 6)]


def test_mmanet_mines_by_the_gap_of_the_score():
  def predict(state, inputs, mask):
    wrong = jnp.where(mask["a"], 1.0, -1.0)[:, None, None]  # without a everything is wrong
    z = wrong * inputs["a"][..., 0]
    return Outputs(jnp.stack([jnp.zeros_like(z), jnp.where(mask["a"][:, None, None], z, 0.0)], -1))

  rng = np.random.default_rng(0)
  a = rng.normal(size=(10, 4, 4))
  splits = data.from_arrays(
    {"a": a, "b": a + 1.0, "label": (a > 0).astype(int)}, scale={"a": "raw", "b": "raw"}
  )
  gap = _mining.ScoreGap(predict, NAMES)
  state = train.initial(
    methods.METHODS["joint"](model(), tx=train.adam(1e-3)),
    jax.random.key(0),
    train.to_batch(splits.train),
    6,
  )
  found = gap(state, splits.validation)
  assert found[0] == pytest.approx(0.0, abs=1e-6) and found[1] > 0.1
