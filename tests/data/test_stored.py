"""Archives that the user brings: known by their arrays, whatever the packing; nothing else is read."""

import numpy as np
import pytest

from mmfuse.data import DataError, _fingerprint, _stored

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "name": np.asarray(["x", "é", "zz"])}
ARCHIVE = _stored.Archive(
  "tiny", "tiny.npz", "three rows", "none of yours", _fingerprint.of_arrays(ARRAYS)
)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", [1, -1])
def test_arrays_are_known_by_content_whatever_the_packing(tmp_path, save, order):
  save(tmp_path / "tiny.npz", **dict(list(ARRAYS.items())[::order]))
  found = _stored.read(ARCHIVE, tmp_path)
  assert set(found) == set(ARRAYS)
  for name, x in ARRAYS.items():
    np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize(
  "other",
  [
    {**ARRAYS, "a": ARRAYS["a"] + np.float32(1e-6)},
    {**ARRAYS, "a": ARRAYS["a"].astype(np.float64)},
    {**ARRAYS, "a": ARRAYS["a"].reshape(2, 3)},
    {**ARRAYS, "name": np.asarray(["x", "e", "zz"])},
    {**ARRAYS, "more": np.zeros(1)},
    {"a": ARRAYS["a"]},
  ],
  ids=["value", "dtype", "shape", "string", "more", "fewer"],
)
def test_other_arrays_are_refused(tmp_path, other):
  np.savez(tmp_path / "tiny.npz", **other)
  with pytest.raises(DataError, match=r"tiny\.npz does not hold the arrays that tiny is read from"):
    _stored.read(ARCHIVE, tmp_path)


def test_pickles_are_not_loaded(tmp_path):
  np.savez(tmp_path / "tiny.npz", **{**ARRAYS, "a": np.asarray([{}, 1], object)})
  with pytest.raises(DataError, match="never loaded"):
    _stored.read(ARCHIVE, tmp_path)


def test_a_missing_file_says_what_it_is_and_its_licence(tmp_path, monkeypatch):
  monkeypatch.delenv(_stored.DATA_DIR, raising=False)
  said = r"tiny\.npz \(three rows; licence: none of yours\)"
  with pytest.raises(DataError, match=f"tiny is read from {said}: give data_dir .*MMFUSE_DATA_DIR"):
    _stored.read(ARCHIVE)
  with pytest.raises(DataError, match=f"folder .* has no {said}"):
    _stored.read(ARCHIVE, tmp_path)
  with pytest.raises(DataError, match="is not a folder"):
    _stored.read(ARCHIVE, tmp_path / "nowhere")
  np.savez(tmp_path / "tiny.npz", **ARRAYS)
  monkeypatch.setenv(_stored.DATA_DIR, str(tmp_path))
  assert len(_stored.read(ARCHIVE)["a"]) == 3


def test_a_fifth_of_the_official_training_items_validates():
  train = np.arange(30) % 3 > 0  # 20 of 30
  label = np.repeat([0, 1], [15, 15])
  split = _stored.split_column(train, label)
  assert (split[~train] == "test").all()
  for c in (0, 1):
    kept = split[train & (label == c)]
    assert (kept == "train").sum() == 8 and (kept == "validation").sum() == 2
  np.testing.assert_array_equal(split, _stored.split_column(train, label))
