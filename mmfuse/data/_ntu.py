"""The text files of NTU RGB+D skeletons: what a `.skeleton` file holds, read and written.

A file: the number of frames; of each frame the number of bodies; of each body a line (its number and nine
states), the number of joints, and a line of twelve numbers a joint, the first three x, y, z in metres.
Shahroudy, Liu, Ng, Wang: NTU RGB+D: A Large Scale Dataset for 3D Human Activity Analysis, CVPR 2016.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmfuse.data._error import DataError
from mmfuse.data._skeleton_graph import NTU_PARENTS

JOINTS = len(NTU_PARENTS)
NAMED = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
FIELDS = ("setup", "camera", "subject", "replication", "action")
_REST = " 0" * 8 + " 2"  # of a joint's line: image places, orientation (not ours to know), tracked
_STATES = " 0 1 0 1 0 0 0 0 2"  # of a body's line


class Recording(NamedTuple):
  """The bodies of a file, in the order in which they appear."""

  joints: np.ndarray  # float32 [T, P, 25, 3], 0 where a body is absent
  present: np.ndarray  # bool [T, P]
  bodies: tuple[str, ...]  # [P], their numbers in the file


class _Lines:
  """A file read line by line, which says where it is not what it should be."""

  def __init__(self, path: Path):
    self.path, self.at = path, 0
    self.lines = path.read_text().splitlines()

  def fail(self, expected: str) -> DataError:
    there = self.lines[self.at - 1].strip() if self.at <= len(self.lines) else "its end"
    return DataError(f"{self.path.name}, line {self.at}: expected {expected}, got {there[:40]!r}")

  def words(self, expected: str, least: int) -> list[str]:
    self.at += 1
    found = self.lines[self.at - 1].split() if self.at <= len(self.lines) else []
    if len(found) < least:
      raise self.fail(expected)
    return found

  def count(self, what: str) -> int:
    (word, *more) = self.words(f"the number of {what}", 1)
    if more or not word.isdigit():
      raise self.fail(f"the number of {what}")
    return int(word)

  def place(self) -> list[float]:
    expected = "x, y, z and nine more numbers of a joint"
    words = self.words(expected, 12)[:3]
    try:
      found = [float(w) for w in words]
    except ValueError as error:
      raise self.fail(expected) from error
    if not np.isfinite(found).all():
      raise self.fail(expected)
    return found


def read_ntu(path: str | Path, persons: int | None = None) -> Recording:
  """The bodies of a `.skeleton` file.

  Args:
    path: of the file.
    persons: P wanted: of more bodies those with most frames are kept, fewer are filled up with absent
      ones; default None, all there are.

  Raises:
    DataError: one sentence with the line, for what is no such file or holds no body.
  """
  lines = _Lines(Path(path))
  frames = lines.count("frames")
  seen: dict[str, dict[int, list[list[float]]]] = {}
  for frame in range(frames):
    for _ in range(lines.count(f"bodies in frame {frame}")):
      body = lines.words("a body and its states", 1)[0]
      if (joints := lines.count("joints")) != JOINTS:
        raise lines.fail(f"{JOINTS} joints")
      seen.setdefault(body, {})[frame] = [lines.place() for _ in range(joints)]
  if any(line.strip() for line in lines.lines[lines.at :]):
    lines.at += 1
    raise lines.fail(f"nothing after {frames} frames")
  if not seen:
    raise DataError(f"{lines.path.name} holds no body in any of {frames} frames")
  chosen = list(seen)
  if persons is not None:
    kept = sorted(chosen, key=lambda b: -len(seen[b]))[:persons]  # stable: earlier ones first
    chosen = [b for b in chosen if b in kept]
  count = len(chosen) if persons is None else persons
  found = np.zeros((frames, count, JOINTS, 3), np.float32)
  present = np.zeros((frames, count), bool)
  for p, body in enumerate(chosen):
    at = list(seen[body])
    found[at, p], present[at, p] = np.asarray(list(seen[body].values())), True
  return Recording(found, present, tuple(chosen))


def write_ntu(path: str | Path, recording: Recording) -> None:
  """A file that `read_ntu` reads back exactly; what it does not hold of a sensor is 0.

  Args:
    path: of the file.
    recording: bodies in any number; an absent one is left out of its frame.

  Raises:
    DataError: shapes that do not fit each other.
  """
  joints, present, bodies = (np.asarray(a) for a in recording)
  shape = (*present.shape, JOINTS, 3)
  if present.ndim != 2 or joints.shape != shape or len(bodies) != present.shape[1]:
    raise DataError(
      f"a recording is joints [T, P, {JOINTS}, 3], present [T, P] and P bodies, got "
      f"{list(joints.shape)}, {list(present.shape)} and {len(bodies)}"
    )
  out = [str(len(joints))]
  for frame, there in zip(joints, present):
    out.append(str(int(there.sum())))
    for p in np.flatnonzero(there):
      out += [f"{bodies[p]}{_STATES}", str(JOINTS)]
      out += [" ".join(f"{v:.9g}" for v in joint) + _REST for joint in frame[p]]
  Path(path).write_text("\n".join(out) + "\n")


def ntu_names(path: str | Path) -> dict[str, int]:
  """{"setup", "camera", "subject", "replication", "action"} of a name like S001C002P003R002A013.

  Args:
    path: of the file.

  Raises:
    DataError: another name.
  """
  found = NAMED.search(Path(path).stem)
  if found is None:
    raise DataError(f"{Path(path).name} is not called like S001C002P003R002A013.skeleton")
  return dict(zip(FIELDS, (int(v) for v in found.groups())))


def ntu_arrays(paths: Iterable[str | Path], persons: int = 2) -> dict[str, Any]:
  """Arrays for `from_arrays` or `np.savez`: `skeleton` [N, T, P, 25, 3] and its lengths, label, group.

  T is that of the longest file, `length_skeleton` [N] the frames of each; `label` the action (from 1),
  `group` the subject. All coordinates stay in memory: 180 kB a file of 300 frames.

  Args:
    paths: of the files, in the order of the rows.
    persons: P, default 2 as in the data set.

  Raises:
    DataError: no file; else as `read_ntu` and `ntu_names`.
  """
  names = list(paths)
  if not names:
    raise DataError("no .skeleton file was given, expected at least one")
  found = [read_ntu(p, persons).joints for p in names]
  said = [ntu_names(p) for p in names]
  length = np.asarray([len(x) for x in found])
  whole = np.zeros((len(found), length.max(), persons, JOINTS, 3), np.float32)
  for row, x in zip(whole, found):
    row[: len(x)] = x
  return {
    "skeleton": whole,
    "length_skeleton": length,
    "label": np.asarray([n["action"] for n in said]),
    "group": np.asarray([n["subject"] for n in said]),
  }
