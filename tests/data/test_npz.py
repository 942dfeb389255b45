import io
import os
import pathlib
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest

from mmfuse.data import DataError, _npz, load, read_arrays

from . import fuzz_npz


def good(**more):
  return {"a": np.arange(12.0).reshape(6, 2), "label": np.array(["x", "y"] * 3), **more}


def test_reads_and_names_after_the_file(tmp_path):
  np.savez(tmp_path / "gait.npz", **good())
  table = load(str(tmp_path / "gait.npz"))
  assert (table.name, table.class_names, table.modalities) == ("gait", ("x", "y"), ("a",))
  np.savez_compressed(tmp_path / "packed.npz", **good())
  assert load(tmp_path / "packed.npz").fingerprint == table.fingerprint


def test_every_layout_reads_as_numpy_reads_it(tmp_path):
  path = tmp_path / "l.npz"
  made = {
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "flag": np.asfortranarray([[True, False], [False, True]]),
    "one": np.float32(3),
    "text": np.array(["é", ""]),
    "bytes": np.array([b"a", b"bc"]),
    "none": np.zeros((0, 3)),
    "empty": np.array([""], "<U0"),
  }
  np.savez(path, **made)
  read = read_arrays(path)
  for name, x in made.items():
    np.testing.assert_array_equal(read[name], x)
    assert read[name].dtype == np.asarray(x).dtype


def test_options_reach_the_door(tmp_path):
  path = tmp_path / "t.npz"
  np.savez(path, t=np.arange(6), label=np.arange(6), mask_t=np.arange(6) > 0)
  table = load(path, task="regression", encoders={"t": "embedding"}, drop_empty=True)
  assert table.task == "regression" and table.inputs["t"].dtype == np.int32
  assert table.notes == ("1 row without a modality dropped",)


def refused(path, message):
  with pytest.raises(DataError, match=message) as error:
    load(path)
  assert "\n" not in str(error.value) and len(str(error.value)) < 700


def test_files_that_are_none(tmp_path):
  refused(tmp_path / "nowhere.npz", "there is no file")
  refused(tmp_path / ("x" * 300 + ".npz"), "there is no file")
  refused("x" * 300, "unknown data set")
  (tmp_path / "text.npz").write_text("a,b\n1,2\n")
  refused(tmp_path / "text.npz", "is no .npz archive")
  (tmp_path / "folder.npz").mkdir()
  refused(tmp_path / "folder.npz", "is no .npz archive but a folder")
  (tmp_path / "empty.npz").write_bytes(b"")
  refused(tmp_path / "empty.npz", "is no .npz archive: it is empty")
  (tmp_path / "pickle.npz").write_bytes(pickle.dumps([1]))
  refused(tmp_path / "pickle.npz", "is no .npz archive")
  np.savez(tmp_path / "nothing.npz")
  refused(tmp_path / "nothing.npz", "holds no array")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
  np.savez(tmp_path / "p.npz", **good())

  def denied(path, *args):
    raise PermissionError(13, "Permission denied", path)

  monkeypatch.setattr(_npz, "open", denied, raising=False)
  refused(tmp_path / "p.npz", "p.npz' cannot be opened: Permission denied")


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
  refused(path, "is broken at 'a.npy' and cannot be read: Bad CRC-32")


@pytest.mark.parametrize("kept", [-30, 0.5, 40])
def test_a_truncated_archive_is_called_truncated(tmp_path, kept):
  path = tmp_path / "t.npz"
  np.savez(path, **good())
  content = path.read_bytes()
  path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
  refused(path, "t.npz' is truncated: the list of its arrays, which ends an archive, is gone")


def patched(path, local, central, value):
  """The archive with one byte changed in the first member's header and in the list's."""
  content = bytearray(path.read_bytes())
  content[local] = value
  content[content.index(b"PK\x01\x02") + central] = value
  path.write_bytes(content)


@pytest.mark.parametrize("method", [9, 97, 8, 12, 14])  # of stored bytes: none of them is
def test_other_compressions(tmp_path, method):
  np.savez(tmp_path / "c.npz", **good())
  patched(tmp_path / "c.npz", 8, 10, method)
  refused(tmp_path / "c.npz", "c.npz' is broken at 'a.npy' and cannot be read: ")


@pytest.mark.parametrize("bits", [1, 1 | 64])
def test_encrypted(tmp_path, bits):
  np.savez(tmp_path / "e.npz", **good())
  patched(tmp_path / "e.npz", 6, 8, bits)
  refused(tmp_path / "e.npz", r"e.npz' is encrypted \('a.npy'\), expected an open archive")


def remade(path, **changed):
  """`good()` as an archive with some members replaced by bytes, checksums right."""
  files = []
  for name, x in good().items():
    buffer = io.BytesIO()
    np.save(buffer, x)
    files.append((f"{name}.npy", buffer.getvalue()))
  files = [(n, changed.pop(n.removesuffix(".npy"), content)) for n, content in files]
  path.write_bytes(fuzz_npz.archive([*files, *changed.items()]))
  return path


@pytest.mark.parametrize(
  ("header", "message"),
  [
    (
      "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 2), }",
      r"h.npz' is broken at 'a.npy' .* float64 \[1000000000000, 2\], 16000000000000 bytes, .* holds 96",
    ),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (5, 2), }", "80 bytes, .* holds 96"),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (-6, -2), }", r"says the shape \[-6, -2\]"),
    (
      "{'descr': '<f8', 'fortran_order': False, 'shape': (6, 2",
      "broken at 'a.npy' .*EOF in multi-line",
    ),
    ("(" * 400, "is broken at 'a.npy' and cannot be read"),
    ("{'descr': '\\d', 'fortran_order': False, 'shape': (6, 2), }", "Cannot parse header"),
  ],
)
def test_headers_that_lie(tmp_path, header, message):
  content = fuzz_npz.members()["b.npy"][:128] + np.arange(12.0).tobytes()
  refused(remade(tmp_path / "h.npz", a=fuzz_npz.with_header(content, header)), message)


def test_a_header_of_python_2_is_sound_and_warns_of_nothing(tmp_path):
  header = "{'descr': '<f8', 'fortran_order': False, 'shape': (6L, 2L), }"
  content = fuzz_npz.members()["b.npy"][:128] + np.arange(12.0).tobytes()
  path = remade(tmp_path / "old.npz", a=fuzz_npz.with_header(content, header))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    np.testing.assert_array_equal(read_arrays(path)["a"], good()["a"])


def test_what_takes_more_than_half_of_the_memory_is_not_read(tmp_path, monkeypatch):
  np.savez_compressed(tmp_path / "m.npz", **good(big=np.zeros((6, 100_000), np.uint8)))
  monkeypatch.setattr(_npz, "available_memory", lambda: 4_000_000)
  monkeypatch.setattr(_npz, "_read", None)  # never called
  said = (
    "m.npz' takes 2.4 MB .* once it is read .2.4 MB of them for 'big'., more than half of the 4.0"
  )
  refused(tmp_path / "m.npz", said)  # uint8 becomes float32
  monkeypatch.undo()
  monkeypatch.setattr(_npz, "available_memory", lambda: 5_000_000)
  assert set(read_arrays(tmp_path / "m.npz")) == {"a", "label", "big"}
  monkeypatch.setattr(_npz, "available_memory", lambda: None)  # the system does not say
  assert set(read_arrays(tmp_path / "m.npz")) == {"a", "label", "big"}


def test_available_memory():
  found = _npz.available_memory()
  assert found is None or 1e6 < found < 1e15
  if os.path.exists("/proc/meminfo"):
    kilobytes = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]
    assert found <= 1024 * int(kilobytes)


def test_a_reader_out_of_memory_is_one_sentence(tmp_path, monkeypatch):
  np.savez(tmp_path / "m.npz", **good())

  def full(*args, **options):
    raise MemoryError

  monkeypatch.setattr(np.lib.format, "read_array", full)
  refused(tmp_path / "m.npz", "is broken at 'a.npy' and cannot be read: MemoryError")


def test_a_member_that_is_no_array(tmp_path):
  refused(remade(tmp_path / "m.npz", **{"readme.txt": b"hello"}), "'readme.txt' in .* is no array")
  refused(remade(tmp_path / "m.npz", **{"data/": b""}), "holds the folder 'data/'")
  refused(remade(tmp_path / "m.npz", a=b""), "'a.npy' in .* is no array")


def test_two_arrays_of_one_name(tmp_path):
  for other in ("a.npy", "a"):
    path = tmp_path / "m.npz"
    files = fuzz_npz.members()
    path.write_bytes(fuzz_npz.archive([*files.items(), (other, files["a.npy"])]))
    refused(path, "holds two arrays called 'a'")


def test_content_that_no_array_of_its_type_has(tmp_path):
  text = np.array(["x", "y"] * 3).view(np.uint32)
  for code in (0x110000, 0xD800):
    text[3] = code
    np.savez(tmp_path / "u.npz", **good(label=text.view("<U1")))
    refused(tmp_path / "u.npz", "array 'label' .* holds strings that are no Unicode")
  np.savez(tmp_path / "u.npz", **good(mask_a=np.array([0, 1, 2, 1, 1, 1], np.uint8).view(bool)))
  refused(tmp_path / "u.npz", "array 'mask_a' .* is bool and holds other bytes than 0 and 1")


def test_a_zip_that_lies_about_its_sizes(tmp_path):
  path = tmp_path / "z.npz"
  np.savez(path, **good())
  content = bytearray(path.read_bytes())
  at = content.index(b"PK\x01\x02")
  content[at + 20 : at + 28] = (2**31).to_bytes(4, "little") * 2  # packed and unpacked
  path.write_bytes(content)
  assert zipfile.is_zipfile(path)
  refused(path, "at 'a.npy' .* says float64 .* the archive holds 2147483520")
