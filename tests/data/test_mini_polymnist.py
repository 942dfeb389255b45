"""mini_polymnist: textures are versioned bytes, digits are inverted colours; then facts of the real set."""

import hashlib
import os

import numpy as np
import pytest

from mmfuse import data
from mmfuse.data import _mini_polymnist as mini

TEXTURES = "241c6bc41f1e62905433efa0b45212f6ae15070610fbfebb723f0d5098e573ef"


def test_textures_are_the_same_bytes_everywhere():
  found = np.stack([mini.texture(i) for i in range(5)])
  assert found.shape == (5, 96, 96, 3) and found.dtype == np.uint8
  assert hashlib.sha256(found.tobytes()).hexdigest() == TEXTURES
  change = np.abs(np.diff(found.astype(float), axis=1)).mean((1, 2, 3))
  assert (np.diff(change) > 0).all()  # from blots to grain


def test_a_digit_is_where_colours_are_inverted():
  images = np.zeros((4, 28, 28), np.uint8)
  images[:, 8:20, 12:16] = 255
  label = np.array([0, 1, 0, 1])
  on = mini.digit_masks(images, 14)
  assert on[0].sum() == 6 * 2 and on[0, 4:10, 6:8].all()
  found, empty = (mini.part_of(x, label, 0, 14) for x in (images, np.zeros_like(images)))
  for m in mini.MODALITIES:
    assert found[m].shape == (4, 14, 14, 3)
    np.testing.assert_array_equal(found[m][~on], empty[m][~on])
    np.testing.assert_array_equal(found[m][on], 255 - empty[m][on])


def test_others_show_another_digit_of_the_class():
  rng = np.random.default_rng(0)
  label = np.repeat([0, 1], 20)
  images = np.zeros((40, 28, 28), np.uint8)
  images[label == 0, :14] = 255
  images[np.arange(40), 14 + rng.integers(0, 12, 40), 20:24] = 255  # a mark of each image
  plain = mini.part_of(np.zeros_like(images), label, 0, 28)
  marks = {m: (x != plain[m]).any(-1) for m, x in mini.part_of(images, label, 0, 28).items()}
  np.testing.assert_array_equal(marks["m0"], images > 0)
  for m in ("m1", "m4"):
    assert marks[m][label == 0, :14].mean() > 0.99 and not marks[m][label == 1, :14].any()
    assert not np.array_equal(marks[m], images > 0)


@pytest.mark.parametrize("name, side", [("mini_polymnist", 14), ("mini_polymnist_28", 28)])
def test_a_twin_needs_no_file(name, side):
  table = data.load(name, fake=True)
  assert table.modalities == mini.MODALITIES and table.name == f"{name}_fake"
  splits = table.splits()
  x = splits.train.inputs["m3"]
  assert x.shape[1:] == (side, side, 3) and x.min() >= 0 and x.max() <= 1
  assert x.max() > 0.9  # raw: not standardised
  with pytest.raises(data.DataError, match=r"50\.\.55,000 for mini_polymnist, got 7"):
    data.load(name, train_size=7)


FINGERPRINTS = {
  "mini_polymnist": "173231a6a5682bcf870899a1071b024eedd3b1f07975368e82a053a6a88b78ba",
  "mini_polymnist_28": "2cd61ccb757e9eafaf6fb5b76b5f08ce7e5b2fad972bf1b90cf781d5d310379a",
}


@pytest.mark.needs_data
@pytest.mark.parametrize("name", FINGERPRINTS)
def test_the_real_set(name):
  if not os.environ.get("MMFUSE_DATA_DIR"):
    pytest.skip("MMFUSE_DATA_DIR is not set: no MNIST to read")
  table = data.load(name)
  sizes = {p: int((table.split == p).sum()) for p in ("train", "validation", "test")}
  assert sizes == {"train": 2_000, "validation": 400, "test": 1_000}
  assert table.num_outputs == 10 and table.fingerprint == FINGERPRINTS[name]
