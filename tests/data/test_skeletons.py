"""skeletons: lengths, what moves and how often, what is drawn; and that it is no video."""

import numpy as np
import pytest

from mmfuse import data
from mmfuse.data import _skeletons
from mmfuse.data._skeleton_graph import NTU_PARENTS, NTU_ROOT, like_skeleton

ROWS = 8


@pytest.fixture(scope="module")
def clean():
  """A row a class, unturned, of size 1, without noise."""
  n = ROWS
  still = _skeletons.Draws(
    np.full(n, 50.0), np.ones(n), np.zeros(n), np.zeros(n), np.zeros((n, 32, 25, 3))
  )
  return _skeletons.posed(np.arange(n), still)


def bones(x):
  return x - x[..., list(NTU_PARENTS), :]


def test_every_bone_keeps_its_length(clean):
  assert sorted(_skeletons.BONES) == [j + 1 for j in range(25) if j != NTU_ROOT]
  want = [_skeletons.BONES[j + 1][1] if j != NTU_ROOT else 0.0 for j in range(25)]
  length = np.linalg.norm(bones(clean), axis=-1)
  np.testing.assert_allclose(length, np.broadcast_to(want, length.shape), atol=1e-12)


def test_at_rest_it_stands_with_its_arms_down(clean):
  x = clean[0, 0]  # sin 0 = 0
  height = {j: x[j - 1, 1] for j in (1, 4, 8, 16, 20)}
  assert height == pytest.approx({1: -2, 4: 0.8, 8: -2.4, 16: -5.2, 20: -5.2})
  assert x[4, 0] == pytest.approx(0.7) and x[8, 0] == pytest.approx(-0.7)
  np.testing.assert_allclose(x[:, 2], clean[7, 0, :, 2], atol=1e-12)


@pytest.mark.parametrize("label", range(ROWS))
def test_one_limb_swings_about_its_first_joint(clean, label):
  swung = np.abs(np.diff(bones(clean[label]), axis=0)).max((0, 2)) > 1e-6
  moving = {j + 1 for j in np.flatnonzero(swung)}
  assert moving == set(_skeletons.SWINGING[label // 2])
  assert not clean[label, :, :, 0].std(0).max() > 1e-9  # in the sagittal plane
  first = min(j for j in moving)  # the upper arm's, the thigh's end
  bone = bones(clean[label])[:, first - 1]
  angle = np.rad2deg(np.arctan2(bone[:, 2], -bone[:, 1]))
  cycles = 1 + label % 2
  want = 50 * np.sin(2 * np.pi * cycles * np.arange(32) / 32)
  np.testing.assert_allclose(np.abs(angle), np.abs(want), atol=1e-6)


def test_a_row_is_drawn_by_its_own_generator():
  whole, few = (_skeletons.draws([(0, 0, i) for i in range(n)]) for n in (40, 3))
  for a, b in zip(whole, few):
    np.testing.assert_array_equal(a[:3], b)
  assert (whole.amplitude >= 40).all() and (whole.amplitude <= 60).all()
  assert (whole.scale >= 0.8).all() and (whole.scale <= 1.2).all() and whole.scale.std() > 0.05
  assert (np.abs(whole.turn) <= 45).all() and np.ptp(whole.turn) > 45
  assert whole.noise.std() == pytest.approx(0.03, rel=0.01)


def test_scale_turn_and_root():
  drawn = _skeletons.draws([(0, 0, i) for i in range(ROWS)])
  x = _skeletons.posed(np.arange(ROWS), drawn)
  assert (x[:, :, NTU_ROOT] == 0).all()
  quiet = drawn._replace(noise=np.zeros_like(drawn.noise))
  x = _skeletons.posed(np.arange(ROWS), quiet)
  trunk = np.linalg.norm(bones(x)[:, :, 1], axis=-1)
  np.testing.assert_allclose(trunk, np.broadcast_to(drawn.scale[:, None], trunk.shape))
  side = x[:, 0, 4] / (0.7 * drawn.scale[:, None])
  turned = np.rad2deg(np.arctan2(side[:, 2], side[:, 0]))
  np.testing.assert_allclose(np.abs(turned), np.abs(drawn.turn), atol=1e-6)


def test_the_table_is_left_as_it_is_and_says_so():
  table = data.load("skeletons")
  assert table.scale == {"skeleton": "raw"} and len(table) == 1200
  splits = table.splits()
  counts = {name: np.bincount(part.label).tolist() for name, part in splits.parts.items()}
  assert counts == {"train": [80] * 8, "validation": [20] * 8, "test": [50] * 8}
  said = " ".join(splits.notes)
  assert "read as a skeleton [time, persons, joints, coordinates]" in said
  x = splits.train.inputs["skeleton"]
  assert x.dtype == np.float32 and (x[:, :, :, NTU_ROOT] == 0).all()
  assert table.fingerprint == data.load("skeletons").fingerprint


@pytest.mark.parametrize(
  "shape, found",
  [
    ((9, 32, 1, 25, 3), True),
    ((9, 300, 2, 25, 3), True),
    ((9, 8, 2, 17, 2), True),
    ((9, 32, 25, 3), False),
    ((9, 16, 32, 32, 3), False),
    ((9, 2, 4, 4, 1), False),
    ((9, 2, 4, 40, 1), False),
    ((9, 8, 4, 4, 3), False),
  ],
)
def test_what_looks_like_a_skeleton(shape, found):
  assert like_skeleton(shape) is found


def test_arrays_of_skeletons_are_not_standardised_unless_asked():
  rng = np.random.default_rng(0)
  x = 5 + rng.normal(size=(20, 4, 1, 25, 3)).astype(np.float32)
  arrays = {"body": x, "label": np.arange(20) % 2}
  found = data.from_arrays(arrays)
  np.testing.assert_array_equal(found.train.inputs["body"], x[found.train.index])
  assert any("body [4, 1, 25, 3] is read as a skeleton" in n for n in found.notes)
  other = data.from_arrays(arrays, encoders={"body": "mlp"})
  assert abs(other.train.inputs["body"].mean()) < 1e-3 and not any(
    "skeleton" in n for n in other.notes
  )
  asked = data.from_arrays(arrays, scale={"body": "standard"})
  assert abs(asked.train.inputs["body"].mean()) < 1e-3
