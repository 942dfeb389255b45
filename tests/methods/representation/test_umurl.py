"""UmURL: views, the loss by hand and its invariances, what it needs and refuses, rows that end early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, encoders, fusion, train
from mmfuse.core import Sequence, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.representation._consistency import consistency_terms
from mmfuse.methods.representation._skeleton_views import View, corrupted, part_of_time, sheared

from .. import _small

RNG = np.random.default_rng(0)
Z = {k: jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32) for k in ("joint", "bone", "motion")}
U = {k: jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32) for k in Z}
X = jnp.asarray(RNG.normal(size=(400, 2, 1, 10, 3)), jnp.float32)
terms = jax.jit(consistency_terms)


def test_consistency_by_hand():
  z = {"a": jnp.asarray([[0.0, 0], [1, 2]]), "b": jnp.asarray([[2.0, 0], [1, 0]])}
  u = {"a": jnp.asarray([[1.0, 0], [1, 2]]), "b": z["b"]}
  found = terms(z, u)
  assert found["intra"] == pytest.approx(0.25)  # 1 of four numbers of a
  # Centres (1, 0) and (1, 1): each modality is off by 1 in one number of each row.
  assert found["inter"] == pytest.approx(2 * 0.5)
  equal = terms(dict.fromkeys(z, z["a"]), dict.fromkeys(z, z["a"]))
  assert equal["inter"] == 0 and equal["intra"] == 0 and found["spread"] > 0


def test_the_order_of_the_rows_and_rows_of_weight_0_change_nothing():
  order = RNG.permutation(6)
  turn = lambda x: {k: v[order] for k, v in x.items()}
  for k, v in terms(Z, U).items():
    assert terms(turn(Z), turn(U))[k] == pytest.approx(float(v), rel=1e-5)
  weight = jnp.asarray([1.0, 1, 0, 1, 0, 1])
  gone = {k: jnp.where(weight[:, None] > 0, v, jnp.nan) for k, v in Z.items()}
  few = lambda x: {k: v[weight > 0] for k, v in x.items()}
  for k, v in terms(few(Z), few(U)).items():
    assert terms(gone, U, weight)[k] == pytest.approx(float(v), rel=1e-5)


def test_no_gradient_is_stopped():
  total = lambda z, u: terms(z, u)["intra"]
  of_z, of_u = jax.grad(total, (0, 1))(Z, U)
  for k in Z:
    np.testing.assert_allclose(of_z[k], -of_u[k], rtol=1e-6)
    np.testing.assert_allclose(of_z[k], 2 * (Z[k] - U[k]) / Z[k].size, rtol=1e-5)


def test_shear_and_corruption_by_hand():
  x = jnp.asarray([1.0, 2, 3]).reshape(1, 1, 1, 1, 3)
  s = jnp.asarray([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
  np.testing.assert_allclose(sheared(x, s).ravel(), [1 + 0.2 + 0.6, 0.3 + 2 + 1.2, 0.5 + 1.2 + 3])
  two = jnp.concatenate([x, x], 3)
  matrix = jnp.arange(9.0).reshape(1, 3, 3)
  chosen = jnp.asarray([[True, False]])
  moved = corrupted(two, chosen, matrix, jnp.asarray([False]))
  np.testing.assert_allclose(moved[0, 0, 0], [[24, 30, 36], [1, 2, 3]])
  zero = corrupted(two, chosen, matrix, jnp.asarray([True]))
  np.testing.assert_allclose(zero[0, 0, 0], [[0, 0, 0], [1, 2, 3]])


def test_half_of_the_views_corrupt_some_joints_half_of_those_to_nothing_and_the_others_bend():
  found = jax.jit(View(0.1, 64, 0.6), static_argnums=2)(jax.random.key(0), X, None)
  same = jnp.abs(found - X).max((1, 2, 4)) == 0  # [B, J]
  broken = same.any(1)
  assert set(np.asarray(same.sum(1)[broken])) == {4}  # 6 of 10
  assert 160 < broken.sum() < 240
  zeroed = (found == 0).all((1, 2, 4)).sum(1)
  assert set(np.unique(zeroed)) == {0, 6} and 60 < (zeroed == 6).sum() < 140
  counts = np.asarray(same[broken].sum(0))
  assert counts.min() > 0.25 * broken.sum()  # any joint may be meant
  bent = np.flatnonzero(~broken)[0]  # linear and one map for all joints and frames
  flat, out = X[bent].reshape(-1, 3), found[bent].reshape(-1, 3)
  matrix = np.linalg.lstsq(np.asarray(flat), np.asarray(out), rcond=None)[0]
  np.testing.assert_allclose(flat @ matrix, out, atol=1e-4)
  np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-4)
  few = View(0.1, 64, 0.6)(jax.random.key(0), X[:7], None)
  np.testing.assert_allclose(few, found[:7], atol=1e-6)  # rows after it draw nothing of a row's


def test_a_part_of_the_time_lies_within_the_row():
  length = jnp.asarray([100] * 300 + [70] * 300 + [10] * 100 + [0])
  draw = jnp.asarray(RNG.uniform(size=(701, 2)))
  start, part = jax.jit(part_of_time, static_argnums=(2, 3))(draw, length, 0.1, 64)
  start, part, length = (np.asarray(a) for a in (start, part, length))
  assert (start >= 0).all() and (start + part <= length).all()
  assert (part >= np.minimum(64, length)).all() and (part[600:] == length[600:]).all()
  assert part[:300].max() > 95 and part[:300].min() == 64 and start[:300].max() > 25
  view = View(0.5, 2, 0.6)
  ramp = jnp.broadcast_to(jnp.arange(8.0).reshape(1, 8, 1, 1, 1), (50, 8, 1, 1, 1))
  cut = view.timed(draw[:50], Sequence(ramp, jnp.full(50, 6)), 4)[:, :, 0, 0, 0]
  assert cut.shape == (50, 4) and (jnp.diff(cut) > 0).all() and cut.max() <= 5
  assert len(np.unique(np.asarray(cut[:, 0]).round(3))) > 3
  whole = View(0.1, 64, 0.6).timed(draw[:50], ramp, None)
  assert whole is ramp


def model(frames=None, **more):
  body = encoders.Skeleton(2, parents=(0, 0, 1), frames=frames)
  return fusion.LateFusion({"body": body, **more}, 2)


def splits(rows=24, **more):
  """Two classes of a body of three joints: its last joint turns ahead, or aside."""
  label = np.arange(rows) % 2
  time = np.sin(np.arange(4) + RNG.uniform(0, 6, (rows, 1)))
  x = 0.1 * RNG.normal(size=(rows, 4, 1, 3, 3))
  x[np.arange(rows), :, 0, 2, label] += 2 * time
  arrays = {"body": x.astype(np.float32), "label": label, **more}
  return data.from_arrays(arrays, scale={"body": "raw"})


def test_without_a_skeleton_it_is_not_available():
  for given in (_small.model(), object()):
    with pytest.raises(Unavailable, match="no modality has the encoder of one"):
      METHODS["umurl"](given)


def test_numbers_that_make_no_sense_are_refused():
  for options, said in (
    ({"hidden": 0}, "hidden must be at least 1"),
    ({"inter": -1.0}, "inter must not be negative"),
    ({"crop": 0.0}, r"crop must lie in \(0, 1\]"),
    ({"joints": 1.5}, r"joints must lie in \(0, 1\]"),
    ({"share": 1.0}, r"share must lie in \(0, 1\)"),
  ):
    with pytest.raises(ValueError, match=said):
      METHODS["umurl"](model(), **options)


@pytest.mark.slow
def test_rows_that_end_early_beside_another_modality_are_read_to_their_end():
  found = splits(length_body=2 + np.arange(24) % 3, other=RNG.normal(size=(24, 2)))
  method = METHODS["umurl"](
    model(frames=2, other=encoders.MLP(2, ())), hidden=3, width=3, crop_frames=1
  )
  batch = next(found.train.batches(8))
  state = train.initial(method, jax.random.key(0), batch)
  assert set(state.params) == {"body", "heads", "fused"} and set(state.params["heads"]) == {"body"}
  values, length = batch.inputs["body"]
  after = np.arange(values.shape[1])[None, :, None, None, None] >= length[:, None, None, None, None]
  assert after.any()
  dirty = batch._replace(
    inputs={**batch.inputs, "body": Sequence(np.where(after, np.nan, values), length)}
  )
  step = jax.jit(method.phases[0].step)
  run = lambda given: step(state, given, jax.random.key(1), _small.clock())
  (one, log), (two, _) = run(batch), run(dirty)
  assert bool(log["finite"]) and log["part/intra"] > 0
  assert all(
    jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), one.params, two.params))
  )
