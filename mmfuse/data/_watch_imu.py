"""watch_imu: accelerometer and gyroscope of a smart watch in seven shoulder exercises.

D. Burns, N. Leung, M. Hardisty, C. Whyne, P. Henry, S. McLachlin, "Shoulder physiotherapy exercise
recognition: machine learning the inertial signals from a smartwatch", Physiological Measurement,
2018. The file comes inside the package seglearn 1.2.5 (BSD-3) and is a *pickled* object array, so
it is decoded only after its checksum and only through an allow-list of names.
"""

import hashlib
import importlib.util
import io
import pathlib
import pickle
from codecs import encode
from typing import Any

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._table import Table

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"  # of seglearn 1.2.5
RECIPE = "watch_imu-1"
WINDOW = 100  # samples at 50 Hz, two seconds, not overlapping
TEST, VALIDATION = (2, 5, 8), (3, 6, 9)  # subjects; 1, 4, 7 and 10 train

# What the file names, and nothing else. numpy.core moved to numpy._core in numpy 2.
_ADMITTED = {
  ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
  ("numpy", "ndarray"): np.ndarray,
  ("numpy", "dtype"): np.dtype,
  ("_codecs", "encode"): encode,
}


class _Unpickler(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _ADMITTED:
      raise DataError(f"the watch_imu file names {module}.{name}, which is not admitted")
    return _ADMITTED[module, name]


def _decode(content: bytes) -> dict[str, Any]:
  stream = io.BytesIO(content)
  np.lib.format.read_magic(stream)
  np.lib.format.read_array_header_1_0(stream)
  return _Unpickler(stream, encoding="latin1").load().item()


def _read(path: pathlib.Path) -> dict[str, Any]:
  """The series of the file at `path`; refused, undecoded, unless it is the one file we know."""
  if not path.is_file():
    raise DataError(
      f"seglearn has no file {path.name} here; pip install 'mmfuse[datasets]' brings version 1.2.5"
    )
  content = path.read_bytes()
  found = hashlib.sha256(content).hexdigest()
  if found != SHA256:
    raise DataError(
      f"watch_dataset.npy has the sha256 {found[:12]}..., not {SHA256[:12]}... of seglearn 1.2.5, "
      "so it is not decoded; pip install 'mmfuse[datasets]' brings the known file"
    )
  return _decode(content)


def _path() -> pathlib.Path:
  spec = importlib.util.find_spec("seglearn")  # found, not imported: its import needs pandas
  if spec is None or spec.origin is None:
    raise DataError(
      "watch_imu is a file of the package seglearn, which is not installed; "
      "pip install 'mmfuse[datasets]' brings it"
    )
  return pathlib.Path(spec.origin).parent / "data" / "watch_dataset.npy"


def table() -> Table:
  """watch_imu: `accel` and `gyro` float32 `[2369, 100, 3]`, 7 exercises, 10 subjects.

  Units as in the file; group = subject. The `split` column: subjects 2, 5, 8 test (765 windows),
  3, 6, 9 validate (643), 1, 4, 7, 10 train (961).

  Raises DataError where seglearn is not installed or its file is not the one of version 1.2.5.
  """
  raw = _read(_path())
  counts = [len(x) // WINDOW for x in raw["X"]]
  cut = [x[: n * WINDOW].reshape(n, WINDOW, 6) for x, n in zip(raw["X"], counts)]
  windows = np.concatenate(cut)
  subject = np.repeat(raw["subject"], counts)
  split = np.select(
    [np.isin(subject, TEST), np.isin(subject, VALIDATION)], ["test", "validation"], "train"
  )
  arrays = {
    "accel": windows[..., :3],
    "gyro": windows[..., 3:],
    "label": np.repeat(np.asarray(raw["y_labels"])[raw["y"]], counts),
    "group": subject,
    "split": split,
  }
  return table_from_arrays(arrays, name="watch_imu", recipe=RECIPE)
