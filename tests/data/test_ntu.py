"""`.skeleton` files: a round trip with a person who comes and goes, and every way to be broken."""

import numpy as np
import pytest

from mmfuse import data
from mmfuse.data import DataError, Recording

RNG = np.random.default_rng(0)
THERE = np.array([[1, 0], [1, 1], [0, 1], [1, 0], [1, 1]], bool)


def recording(present=THERE, bodies=("72057594037944738", "72057594037944739")):
  x = RNG.normal(size=(*present.shape, 25, 3)).astype(np.float32)
  return Recording(np.where(present[..., None, None], x, 0), present, bodies[: present.shape[1]])


@pytest.fixture
def path(tmp_path):
  return tmp_path / "S001C002P003R002A013.skeleton"


def test_a_file_of_two_persons_the_second_missing_for_some_frames_comes_back_exactly(path):
  given = recording()
  data.write_ntu(path, given)
  lines = path.read_text().splitlines()
  # 5 + frames, and per body in a frame its line, the number of joints and 25 joints of 12 numbers.
  assert lines[0] == "5" and lines[1] == "1" and len(lines) == 1 + 5 + 7 * 27
  assert len(lines[2].split()) == 10 and lines[3] == "25" and len(lines[4].split()) == 12
  found = data.read_ntu(path)
  np.testing.assert_array_equal(found.joints, given.joints)
  np.testing.assert_array_equal(found.present, given.present)
  assert found.bodies == given.bodies and found.joints.dtype == np.float32
  assert (found.joints[0, 1] == 0).all()


def test_of_many_persons_those_of_most_frames_are_kept_and_few_are_filled_up(path):
  there = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 1]], bool)
  given = recording(there, ("a", "b", "c"))
  data.write_ntu(path, given)
  two = data.read_ntu(path, 2)
  assert two.bodies == ("b", "c")
  np.testing.assert_array_equal(two.joints, given.joints[:, 1:])
  four = data.read_ntu(path, 4)
  assert four.joints.shape == (4, 4, 25, 3) and not four.present[:, 3].any()
  assert not four.joints[:, 3].any()


def test_files_become_arrays_with_lengths_labels_and_subjects(tmp_path):
  paths = [tmp_path / f"S001C001P00{p}R001A0{a}.skeleton" for p, a in ((1, 12), (2, 50), (1, 50))]
  for path, frames in zip(paths, (3, 5, 4)):
    data.write_ntu(path, recording(THERE[:frames]))
  arrays = data.ntu_arrays(paths)
  assert arrays["skeleton"].shape == (3, 5, 2, 25, 3)
  assert arrays["length_skeleton"].tolist() == [3, 5, 4]
  assert arrays["label"].tolist() == [12, 50, 50] and arrays["group"].tolist() == [1, 2, 1]
  table = data.table_from_arrays({k: v for k, v in arrays.items() if k != "group"})
  assert table.inputs["skeleton"].length.tolist() == [3, 5, 4]
  assert table.scale == {"skeleton": "raw"}
  assert data.ntu_names(paths[1]) == {
    "setup": 1,
    "camera": 1,
    "subject": 2,
    "replication": 1,
    "action": 50,
  }


def test_what_is_no_such_name_or_no_file_is_said():
  with pytest.raises(DataError, match=r"walk\.skeleton is not called like S001C002P003R002A013"):
    data.ntu_names("walk.skeleton")
  with pytest.raises(DataError, match=r"no \.skeleton file was given"):
    data.ntu_arrays([])


def broken(lines, at, line):
  return [*lines[:at], *([] if line is None else [line]), *lines[at + 1 :]]


@pytest.mark.parametrize(
  "change, said",
  [
    (lambda x: broken(x, 0, "five"), "line 1: expected the number of frames, got 'five'"),
    (lambda x: broken(x, 1, "1 2"), "line 2: expected the number of bodies in frame 0"),
    (lambda x: broken(x, 3, "24"), "line 4: expected 25 joints, got '24'"),
    (lambda x: broken(x, 4, "1 2 3"), "line 5: expected x, y, z and nine more numbers"),
    (lambda x: broken(x, 4, "a" + x[4]), "line 5: expected x, y, z"),
    (lambda x: broken(x, 4, "nan " + x[4]), "line 5: expected x, y, z"),
    (lambda x: x[:40], "line 41: expected .*, got 'its end'"),
    (lambda x: [*x, "1"], "expected nothing after 5 frames, got '1'"),
    (lambda x: ["2", "0", "0"], "holds no body in any of 2 frames"),
    (lambda x: [], "line 1: expected the number of frames, got ''"),
  ],
)
def test_a_broken_file_is_told_by_its_line(path, change, said):
  data.write_ntu(path, recording())
  path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
  with pytest.raises(DataError, match=said):
    data.read_ntu(path)


def test_a_recording_that_does_not_fit_is_not_written(path):
  given = recording()
  with pytest.raises(DataError, match=r"got \[5, 2, 25, 3\], \[5, 2\] and 1"):
    data.write_ntu(path, given._replace(bodies=("a",)))
  assert not path.exists()
