"""Which joint of a skeleton hangs on which, and what an array of skeletons looks like."""

from typing import Any

# NTU RGB+D, joints numbered from 1 as its papers do; 21, between the shoulders, is the root.
_NTU = (2, 21, 21, 3, 21, 5, 6, 7, 21, 9, 10, 11, 1, 13, 14, 15, 1, 17, 18, 19, 21, 23, 8, 25, 12)
NTU_PARENTS = tuple(p - 1 for p in _NTU)  # parent of each of the 25 joints, numbered from 0
NTU_ROOT = 20

MOST_PERSONS, LEAST_JOINTS = 4, 10
COORDINATES = (2, 3)


def like_skeleton(shape: tuple[int, ...]) -> bool:
  """Whether arrays [B, T, P, J, C] are skeletons: P <= 4, J >= 10, C 2 or 3; no video is 4 pixels high."""
  if len(shape) != 5:
    return False
  persons, joints, coordinates = shape[2:]
  return persons <= MOST_PERSONS and joints >= LEAST_JOINTS and coordinates in COORDINATES


def read_as_skeleton(spec: Any, shape: tuple[int, ...]) -> bool:
  """Whether an encoder choice, or the shape where there is none, reads arrays as skeletons."""
  if spec is None:
    return like_skeleton(shape)
  return bool(spec == "skeleton") or type(spec).__name__ == "Skeleton"


def skeleton_note(name: str, shape: tuple[int, ...]) -> str:
  """What is said of a modality read so."""
  return (
    f"{name} {list(shape[1:])} is read as a skeleton [time, persons, joints, coordinates]: it is not "
    f"standardised, and its encoder is that of skeletons (--scale {name}=standard and --encoder {name}=... "
    "say otherwise)"
  )
