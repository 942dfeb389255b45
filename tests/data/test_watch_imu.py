import importlib.util
import io
import pickle
import sys

import numpy as np
import pytest

from mmfuse.data import DataError, _watch_imu, load


@pytest.fixture(scope="module")
def table():
  return load("watch_imu")


def test_what_the_pages_say(table):
  assert table.modalities == ("accel", "gyro")
  assert {x.shape for x in table.inputs.values()} == {(2369, 100, 3)}
  assert table.class_names == ("ABD", "ER", "FEL", "IR", "PEN", "ROW", "TRAP")
  assert set(table.group) == set(range(1, 11))
  splits = table.splits()
  parts = (splits.train, splits.validation, splits.test)
  assert [len(p.label) for p in parts] == [961, 643, 765]
  assert [sorted(set(p.group)) for p in parts] == [[1, 4, 7, 10], [3, 6, 9], [2, 5, 8]]
  assert splits.notes == ()


def test_windows_are_those_of_the_series(table):
  raw = _watch_imu._read(_watch_imu._path())
  first = raw["X"][0]
  np.testing.assert_array_equal(table.inputs["accel"][1], first[100:200, :3])
  np.testing.assert_array_equal(table.inputs["gyro"][0], first[:100, 3:])
  assert table.class_names[table.label[0]] == raw["y_labels"][raw["y"][0]]
  last = raw["X"][-1]
  end = len(last) // 100 * 100
  np.testing.assert_array_equal(table.inputs["gyro"][-1], last[end - 100 : end, 3:])


def test_the_package_is_not_imported(table):
  assert "seglearn" not in sys.modules


def test_a_tampered_copy_is_refused_before_a_byte_is_decoded(tmp_path, monkeypatch):
  content = bytearray(_watch_imu._path().read_bytes())
  content[-100] ^= 1
  path = tmp_path / "watch_dataset.npy"
  path.write_bytes(content)
  touched = []
  monkeypatch.setattr(_watch_imu, "_decode", touched.append)
  monkeypatch.setattr(pickle, "loads", touched.append)
  monkeypatch.setattr(np, "load", touched.append)
  with pytest.raises(DataError, match=r"has the sha256 .* so it is not decoded"):
    _watch_imu._read(path)
  assert not touched
  _watch_imu._read(_watch_imu._path())  # the known file does reach the decoder
  assert len(touched) == 1


def test_a_missing_file(tmp_path):
  with pytest.raises(DataError, match=r"has no file watch_dataset.npy"):
    _watch_imu._read(tmp_path / "watch_dataset.npy")


def test_the_unpickler_admits_four_names_only():
  for value in (print, np.zeros, pickle.Unpickler, importlib.util.find_spec):
    with pytest.raises(DataError, match="which is not admitted"):
      _watch_imu._Unpickler(io.BytesIO(pickle.dumps(value, 2))).load()
  assert len(_watch_imu._ADMITTED) == 4


def test_without_seglearn(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(DataError, match=r"not installed; pip install 'mmfuse\[datasets\]'"):
    load("watch_imu")
