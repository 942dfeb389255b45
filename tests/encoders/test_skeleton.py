"""Skeletons: streams and their invariances, resized frames, the encoder's two branches, when it is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.core import Sequence
from mmfuse.data._skeleton_graph import NTU_PARENTS
from mmfuse.encoders._pool import entry_at
from mmfuse.encoders._skeleton import interleaved_positions

RNG = np.random.default_rng(0)
PARENTS = (1, 1, 0, 1)
X = jnp.asarray(RNG.normal(size=(3, 4, 2, 4, 3)), jnp.float32)
SMALL = encoders.Skeleton(4, heads=2, parents=PARENTS)
EVERY = jnp.ones(3, bool)


@pytest.fixture(scope="module")
def params():
  made = jax.jit(lambda x: SMALL.init(jax.random.key(0), x, EVERY, train=False))(X)
  # Layer norms, biases and ties aside, every number takes part.
  return jax.tree.map(lambda p: p + 0.3 * jnp.asarray(RNG.normal(size=p.shape), p.dtype), made)


@jax.jit
def said(params, x):
  return SMALL.apply(params, x, jnp.ones(X.shape[0], bool), train=False)


def test_bone_is_blind_to_where_the_body_stands_and_motion_to_it_too():
  found = encoders.skeleton_streams(X, PARENTS)
  moved = encoders.skeleton_streams(X + jnp.asarray([1.0, -2, 3]).reshape(1, 1, 1, 1, 3), PARENTS)
  for k in ("bone", "motion"):
    np.testing.assert_allclose(found[k], moved[k], atol=1e-6)
  assert not found["bone"][:, :, :, 1].any() and not found["motion"][:, -1].any()
  np.testing.assert_allclose(found["bone"][:, :, :, 2], X[:, :, :, 2] - X[:, :, :, 0])
  still = encoders.skeleton_streams(jnp.broadcast_to(X[:, :1], X.shape), PARENTS)
  assert not still["motion"].any()


def test_tokens_are_frames_and_joints_of_persons():
  frames, places = encoders.skeleton_tokens(X)
  assert frames.shape == (3, 4, 24) and places.shape == (3, 8, 12)
  assert frames[1, 2, 1 * 12 + 3 * 3 + 2] == X[1, 2, 1, 3, 2]
  assert places[1, 1 * 4 + 3, 2 * 3 + 2] == X[1, 2, 1, 3, 2]
  assert len(NTU_PARENTS) == 25 and NTU_PARENTS[20] == 20 and NTU_PARENTS[0] == 1


def test_frames_are_resized_at_half_pixel_centres():
  ramp = jnp.arange(6.0)[None, :, None]
  resize = lambda *how: encoders.resize_frames(ramp, *how)[0, :, 0].tolist()
  assert resize(6) == [0, 1, 2, 3, 4, 5]
  assert resize(3) == pytest.approx([0.5, 2.5, 4.5])
  assert resize(4, jnp.asarray([3]), jnp.asarray([2])) == pytest.approx([3, 3.25, 3.75, 4])
  assert resize(2, jnp.asarray([5]), jnp.asarray([1])) == [5, 5]
  rows = jnp.where(jnp.arange(6) < 4, ramp[0, :, 0], jnp.nan)[None, :, None]
  cut = encoders.whole_frames(Sequence(rows, jnp.asarray([4])), 2)
  np.testing.assert_allclose(cut[0, :, 0], [0.5, 2.5])
  assert encoders.whole_frames(ramp) is ramp


def test_what_stands_after_the_end_or_in_a_row_that_is_absent_is_not_read(params):
  length = jnp.asarray([4, 2, 0])
  ended = Sequence(
    jnp.where(jnp.arange(4).reshape(1, 4, 1, 1, 1) < 2, X, jnp.nan), length.at[0].set(2)
  )
  assert np.isfinite(said(params, ended)).all()
  same = said(params, Sequence(X, length.at[2].set(4)))
  np.testing.assert_allclose(same[0], said(params, X)[0], rtol=1e-5)


def test_the_branch_of_joints_is_blind_to_their_order_and_that_of_frames_is_not(params):
  # Motion and joint of any order are as good; of bones each keeps its parent: joints 2 and 3 swapped.
  turned = encoders.Skeleton(4, heads=2, parents=(1, 1, 1, 0))
  swap = X[:, :, :, jnp.asarray([0, 1, 3, 2])]
  run = jax.jit(lambda p, x: turned.apply(p, x, EVERY, train=False))
  a, b = said(params, X), run(params, swap)
  np.testing.assert_allclose(a[:, 4:], b[:, 4:], rtol=1e-5, atol=1e-6)
  assert np.abs(a[:, :4] - b[:, :4]).max() > 1e-3
  persons = said(params, X[:, :, ::-1])
  np.testing.assert_allclose(a[:, 4:], persons[:, 4:], rtol=1e-5, atol=1e-6)


def test_apart_and_joined_is_the_encoder_and_each_stream_alone(params):
  each = dict.fromkeys(("joint", "bone", "motion"), X)
  both = jax.jit(lambda p, e, x: SMALL.apply(p, e, x, method="apart_and_joined"))
  apart, joined = both(params, each, X)
  np.testing.assert_allclose(joined, said(params, X), rtol=1e-5, atol=1e-6)
  other = {**each, "bone": X[::-1]}
  changed, again = both(params, other, X)
  np.testing.assert_allclose(again, joined, rtol=1e-6)
  np.testing.assert_allclose(changed["bone"], apart["bone"][::-1], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(changed["joint"], apart["joint"], rtol=1e-6)


def test_positions_alternate_sine_and_cosine():
  table = interleaved_positions(3, 5)
  want = [np.sin(2), np.cos(2), np.sin(2 * 1e4**-0.4), np.cos(2 * 1e4**-0.4), np.sin(2 * 1e4**-0.8)]
  np.testing.assert_allclose(table[2], want, rtol=1e-6)
  np.testing.assert_array_equal(table[0], [0, 1, 0, 1, 0])


@pytest.mark.parametrize("count", [1, 5, 300])
def test_the_largest_of_many_tokens(count):
  h = jnp.asarray(RNG.normal(size=(2, count, 3)), jnp.float32)
  np.testing.assert_array_equal(entry_at(h, jnp.argmax), h.max(1))


def _shape(module, shape):
  x = jax.ShapeDtypeStruct(shape, np.float32)
  return encoders.check_encoder(module, x, "body")


def test_it_is_chosen_by_shape_and_says_so():
  shape = (9, 6, 1, 25, 3)
  module = encoders.default_encoder(shape, np.float32)
  assert module == encoders.Skeleton() == encoders.by_name("skeleton", shape, np.float32)
  h, variables = _shape(module, shape)
  assert h.shape[1:] == (module.features,)
  x = jax.ShapeDtypeStruct(shape, np.float32)
  words = encoders.describe(module, x, variables["params"], True)
  assert words.startswith("[6, 1, 25, 3] -> skeleton, ")
  assert words.endswith("(read as a skeleton [time, persons, joints, coordinates], no video)")
  video = encoders.default_encoder((9, 6, 8, 25, 3), np.float32)
  assert isinstance(video, encoders.Frames)


def test_other_joints_need_their_parents():
  with pytest.raises(ValueError, match=r"skeletons of 17 joints, whose bones are not known"):
    encoders.default_encoder((9, 6, 1, 17, 3), np.float32)
  with pytest.raises(ValueError, match=r"\[B, T, persons, 25 joints, coordinates\], got shape"):
    _shape(encoders.Skeleton(), (9, 6, 1, 17, 3))
  with pytest.raises(ValueError, match="'skeleton' takes floats of rank 5"):
    encoders.by_name("skeleton", (9, 6, 25), np.float32)
  with pytest.raises(ValueError, match=r"hidden \(5\) must be a multiple of heads \(2\)"):
    _shape(encoders.Skeleton(5, heads=2), (9, 6, 1, 25, 3))
