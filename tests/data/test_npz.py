import io
import pickle
import zipfile

import numpy as np
import pytest

from mmfuse.data import DataError, load, read_arrays


def good(**more):
  return {"a": np.arange(12.0).reshape(6, 2), "label": np.array(["x", "y"] * 3), **more}


def test_reads_and_names_after_the_file(tmp_path):
  np.savez(tmp_path / "gait.npz", **good())
  table = load(str(tmp_path / "gait.npz"))
  assert (table.name, table.class_names, table.modalities) == ("gait", ("x", "y"), ("a",))
  np.savez_compressed(tmp_path / "packed.npz", **good())
  assert load(tmp_path / "packed.npz").fingerprint == table.fingerprint


def test_options_reach_the_door(tmp_path):
  path = tmp_path / "t.npz"
  np.savez(path, t=np.arange(6), label=np.arange(6), mask_t=np.arange(6) > 0)
  table = load(path, task="regression", encoders={"t": "embedding"}, drop_empty=True)
  assert table.task == "regression" and table.inputs["t"].dtype == np.int32
  assert table.notes == ("1 row without a modality dropped",)


def refused(path, message):
  with pytest.raises(DataError, match=message):
    load(path)


def test_files_that_are_none(tmp_path):
  refused(tmp_path / "nowhere.npz", "there is no file")
  (tmp_path / "text.npz").write_text("a,b\n1,2\n")
  refused(tmp_path / "text.npz", "is no .npz archive")
  (tmp_path / "folder.npz").mkdir()
  refused(tmp_path / "folder.npz", "is no .npz archive")
  (tmp_path / "empty.npz").write_bytes(b"")
  refused(tmp_path / "empty.npz", "is no .npz archive")
  (tmp_path / "pickle.npz").write_bytes(pickle.dumps([1]))
  refused(tmp_path / "pickle.npz", "is no .npz archive")
  np.savez(tmp_path / "nothing.npz")
  refused(tmp_path / "nothing.npz", "holds no array")


def test_objects_are_never_loaded(tmp_path):
  np.savez(tmp_path / "o.npz", **good(o=np.array([None, {}, 1, 2, 3, 4], object)))
  refused(tmp_path / "o.npz", "array 'o' .* Python objects are never loaded")


def test_broken_archives(tmp_path):
  path = tmp_path / "b.npz"
  np.savez(path, **good())
  content = bytearray(path.read_bytes())
  at = content.index(np.arange(12.0).tobytes())
  content[at] ^= 1  # one bit: the checksum of the member no longer holds
  path.write_bytes(content)
  refused(path, "is broken and cannot be read")
  path.write_bytes(content[:-30])
  refused(path, "is no .npz archive")


def test_a_member_that_is_no_array(tmp_path):
  path, buffer = tmp_path / "m.npz", io.BytesIO()
  np.save(buffer, np.arange(4))
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("label.npy", buffer.getvalue())
    archive.writestr("readme.txt", "hello")
  refused(path, "array 'readme.txt' is a single value")
  assert set(read_arrays(path)) == {"label", "readme.txt"}
