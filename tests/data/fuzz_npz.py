"""Mutated archives through the whole door: `python -m tests.data.fuzz_npz 3000` counts what comes out.

Every mutant must be read or refused with a DataError: no other exception, no warning.
"""

import collections
import io
import pathlib
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile

import numpy as np

from mmfuse import data

ROWS = 12
HEADERS = (  # what a header may claim or hold, besides what the edits of `_header` make of it
  "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 2), }",
  "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999999, ), }",
  "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2), }",
  "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 12), }",
  "{'descr': '<f8', 'fortran_order': 7, 'shape': (12, 2), }",
  "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 24), }",
  "{'descr': '<f8', 'fortran_order': False, 'shape': (12L, 2L), }",
  "{'descr': '|O', 'fortran_order': False, 'shape': (12, 2), }",
  "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
  "{'descr': '<U4', 'fortran_order': False, 'shape': (12,), }",
  "{'descr': '<M8[D]', 'fortran_order': False, 'shape': (12, 2), }",
  "{'descr': '<M8[parsec]', 'fortran_order': False, 'shape': (12, 2), }",
  "{'descr': '<c16', 'fortran_order': False, 'shape': (12,), }",
  "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (12, 2), }",
  "{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (12, 2), }",
  "{'descr': '|b1', 'fortran_order': False, 'shape': (12, 16), }",
  "{'descr': '\\d', 'fortran_order': False, 'shape': (12, 2), }",
  "{'descr': '<f8', 'shape': (12, 2), }",
  "{'descr': '<f8', 'fortran_order': False, 'shape': (12, 2",
  "(" * 400,
  "-" * 4000 + "1",
  "[" * 90 + "]" * 90,
  "'''",
  "\x00" * 20,
  "é{}",
  "{1: 2",
  "",
)
CHARACTERS = "0123456789()[]{},:'<>|=bfiuUSOVTrueL -\\"
NAMES = (
  "label",
  "split",
  "group",
  "mask_a",
  "mask_c",
  "weight",
  "length_a",
  "mask_label",
  "a",
  "b",
  " ",
  "x/y",
  "fused",
  "../a",
  "a b",
  "é",
  "label.npy",
)


def arrays() -> dict[str, np.ndarray]:
  """A small set with everything an archive may hold."""
  rng = np.random.default_rng(0)
  return {
    "label": np.asarray(["x", "y", "z"] * 4),
    "a": rng.normal(size=(ROWS, 2)),
    "b": rng.integers(0, 9, (ROWS, 3)),
    "image": rng.integers(0, 255, (ROWS, 2, 2), np.uint8),
    "mask_b": np.arange(ROWS) > 1,
    "group": np.arange(ROWS) // 2,
    "split": np.repeat(["train", "val", "test"], 4),
  }


def members() -> dict[str, bytes]:
  """{file in the archive: its bytes}."""
  out = {}
  for name, x in arrays().items():
    buffer = io.BytesIO()
    np.save(buffer, x)
    out[f"{name}.npy"] = buffer.getvalue()
  return out


def archive(files: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
  """An archive of these files, checksums and all; a name may come twice."""
  buffer = io.BytesIO()
  with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as made:
    warnings.simplefilter("ignore")  # of a name that comes twice
    for name, content in files:
      made.writestr(name, content)
  return buffer.getvalue()


def _bytes(rng: np.random.Generator, content: bytes) -> bytes:
  """Flips, cuts, doubles, inserts or overwrites some bytes."""
  out = bytearray(content)
  at, span = int(rng.integers(len(out))), int(rng.integers(1, 40))
  kind = rng.integers(6)
  if kind == 0:
    for i in rng.integers(0, len(out), rng.integers(1, 8)):
      out[i] ^= 1 << int(rng.integers(8))
  elif kind == 1:
    del out[at:]
  elif kind == 2:
    del out[at : at + span]
  elif kind == 3:
    out[at:at] = rng.bytes(span)
  elif kind == 4:
    out[at : at + span] = rng.bytes(span)
  else:
    out[at:at] = out[at : at + span]
  return bytes(out)


def with_header(content: bytes, header: str, version: tuple[int, int] = (1, 0)) -> bytes:
  """The bytes of an array under another header."""
  start = 10 + struct.unpack("<H", content[8:10])[0]
  text = header.encode("latin1") + b"\n"
  length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
  return b"\x93NUMPY" + bytes(version) + length + text + content[start:]


def _header(rng: np.random.Generator, content: bytes) -> bytes:
  """Another header: one of `HEADERS`, or the array's own with some characters changed."""
  version = ((1, 0), (2, 0), (3, 0), (9, 9))[rng.choice(4, p=(0.7, 0.1, 0.1, 0.1))]
  if rng.random() < 0.4:
    return with_header(content, HEADERS[rng.integers(len(HEADERS))], version)
  start = 10 + struct.unpack("<H", content[8:10])[0]
  text = list(content[10:start].decode("latin1").strip())
  for _ in range(rng.integers(1, 4)):
    at = int(rng.integers(len(text)))
    text[at] = CHARACTERS[rng.integers(len(CHARACTERS))] * int(rng.integers(3))
    text = list("".join(text)) or [" "]
  return with_header(content, "".join(text), version)


def _values(rng: np.random.Generator) -> bytes:
  """A sound array of some type and shape, with random bytes for its content."""
  kinds = ("<f8", ">f4", "<f2", "<i8", ">u2", "|u1", "|i1", "<u8", "<U2", "|S3", "<c8", "<m8[s]")
  dtype = np.dtype(kinds[rng.integers(len(kinds))])
  shapes = ((ROWS,), (ROWS, 1), (ROWS, 3), (ROWS, 2, 2), (ROWS, 0), (), (ROWS - 1, 2), (0,))
  shape = shapes[rng.choice(len(shapes), p=(0.3, 0.1, 0.2, 0.2, 0.05, 0.05, 0.05, 0.05))]
  count = int(np.prod(shape))
  x = np.frombuffer(rng.bytes(count * dtype.itemsize), dtype, count).reshape(shape)
  if dtype.kind in "fiu" and rng.random() < 0.5:
    x = rng.integers(0, 3, shape).astype(dtype)
  buffer = io.BytesIO()
  np.save(buffer, x)
  return buffer.getvalue()


def mutant(seed: int) -> bytes:
  """An archive with one fault, or several; a function of its seed."""
  rng = np.random.default_rng(seed)
  files = list(members().items())
  method = zipfile.ZIP_DEFLATED if rng.random() < 0.4 else zipfile.ZIP_STORED
  kind = rng.integers(8)
  if kind < 2:  # the archive
    return _bytes(rng, archive(files, method))
  if kind == 2:  # its list, which stands at the end
    whole = archive(files, method)
    at = whole.index(b"PK\x01\x02")
    return whole[:at] + _bytes(rng, whole[at:])
  i = int(rng.integers(len(files)))
  name, content = files[i]
  if kind == 3:  # an array, with the right checksum
    files[i] = name, _bytes(rng, content)
  elif kind == 4:
    files[i] = name, _header(rng, content)
  elif kind == 5:
    files[i] = name, _values(rng)
  elif kind == 6:  # the content of an array
    start = 10 + struct.unpack("<H", content[8:10])[0]
    changed = bytearray(content)
    for at in rng.integers(start, len(content), rng.integers(1, 4)):
      changed[at] = int(rng.integers(256)) if rng.random() < 0.5 else changed[at] ^ 1
    files[i] = name, bytes(changed)
  else:  # a member more, fewer or renamed
    other = NAMES[rng.integers(len(NAMES))] + (".npy" if rng.random() < 0.8 else "")
    files[i] = other, content
    if rng.random() < 0.3:
      files.append((name, content))
  return archive(files, method)


def outcome(path: pathlib.Path) -> str:
  """`read` or `refused`, through `load` and `splits`; anything else is raised."""
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    try:
      data.load(str(path)).splits()
    except data.DataError as error:
      said = " ".join(str(error).split())
      if not said or len(said) > 700:
        raise AssertionError(f"a refusal of {len(said)} characters") from error
      return "refused"
  return "read"


def fuzz(count: int, folder: pathlib.Path, first: int = 0) -> tuple[collections.Counter, list[str]]:
  """Outcomes of mutants first..first+count-1, and what was raised that must not be, with its seed."""
  counts, faults, path = collections.Counter(), [], folder / "mutant.npz"
  for seed in range(first, first + count):
    path.write_bytes(mutant(seed))
    try:
      counts[outcome(path)] += 1
    except Exception:
      counts["fault"] += 1
      faults.append(f"seed {seed}: {traceback.format_exc()}")
  return counts, faults


if __name__ == "__main__":
  with tempfile.TemporaryDirectory() as place:
    found, broken = fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 3000, pathlib.Path(place))
  print("\n".join(broken))
  print(dict(found))
  sys.exit(bool(broken))
