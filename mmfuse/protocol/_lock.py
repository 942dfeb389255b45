"""One owner per output folder: a lock file beside it, with process, host and time.

The file is held by the kernel (`flock`) for as long as its process lives, so that two commands can
never both have it, and one that was killed leaves nothing that a person must clean up. Where a
file system cannot do that, the file that is made first counts.
"""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import time
from typing import NamedTuple

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]

INSIDE = ".lock"  # name of a lock that lies in its folder
_WAIT = 0.5  # seconds that a new owner may take to write its name


class Owner(NamedTuple):
  """Who holds, or held, a lock."""

  process: int
  host: str
  since: str


class Held(Exception):
  """Another process has the folder; the text says which one, and what to do."""


def lock_path(folder: pathlib.Path) -> pathlib.Path:
  """`.<name>.lock` beside the folder, which may be moved; inside where nothing can be moved."""
  folder = folder.resolve()
  if os.access(folder.parent, os.W_OK):
    return folder.parent / f".{folder.name}.lock"
  return folder / INSIDE


class Lock:
  """A lock that this process holds until `release`."""

  def __init__(self, path: pathlib.Path, descriptor: int, note: str = ""):
    self.path, self.note, self._descriptor = path, note, descriptor

  @classmethod
  def take(cls, folder: pathlib.Path) -> "Lock":
    """The lock of a folder whose parent exists. Raises Held, having written nothing."""
    path = lock_path(folder)
    while True:
      descriptor, new = _open(path)
      try:
        free = _flock(descriptor)
        if free and not _is_at(descriptor, path):  # its owner has just removed it
          continue
        if free is False or (free is None and not new):
          raise Held(_sentence(_owner(descriptor, _WAIT), path, sure=free is False))
        before = _owner(descriptor)
        if before is not None and before.host != socket.gethostname():
          raise Held(_sentence(before, path, sure=False))
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(_me()._asdict()).encode())
        lock = cls(path, descriptor, "" if before is None else _taken_over(before))
        descriptor = -1
        return lock
      finally:
        if descriptor >= 0:
          os.close(descriptor)

  def release(self) -> None:
    """Gives the folder back; a second call does nothing."""
    if self._descriptor < 0:
      return
    descriptor, self._descriptor = self._descriptor, -1
    mine = _is_at(descriptor, self.path)
    if fcntl is None:  # an open file cannot be removed there
      os.close(descriptor)
    if mine:
      with contextlib.suppress(FileNotFoundError):
        self.path.unlink()
    if fcntl is not None:
      os.close(descriptor)


def holder_inside(folder: pathlib.Path) -> str:
  """A sentence about a folder below `folder` that a process is writing, "" where there is none."""
  for path in sorted(folder.rglob(".*.lock")):
    descriptor = os.open(path, os.O_RDWR)
    try:
      if not (free := _flock(descriptor)):
        return _sentence(_owner(descriptor, _WAIT), path, sure=free is False)
    finally:
      os.close(descriptor)
  return ""


def _open(path: pathlib.Path) -> tuple[int, bool]:
  """-> (descriptor, whether the file is new)."""
  while True:
    with contextlib.suppress(FileExistsError):
      return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    with contextlib.suppress(FileNotFoundError):  # removed in between
      return os.open(path, os.O_RDWR), False


def _flock(descriptor: int) -> bool | None:
  """Whether the kernel gave us the file; None where it cannot say."""
  if fcntl is None:
    return None
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:  # a file system without locks
    return None
  return True


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), path.stat())
  except FileNotFoundError:
    return False


def _owner(descriptor: int, wait: float = 0.0) -> Owner | None:
  """What the file says, None while it says nothing whole."""
  until = time.monotonic() + wait
  while True:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
      return Owner(**json.loads(os.read(descriptor, 4096)))
    except (ValueError, TypeError):
      if time.monotonic() >= until:
        return None
    time.sleep(0.02)


def _me() -> Owner:
  now = datetime.datetime.now().isoformat(" ", "seconds")
  return Owner(os.getpid(), socket.gethostname(), now)


def _sentence(owner: Owner | None, path: pathlib.Path, sure: bool) -> str:
  who = "another process"
  if owner is not None:
    here = "this machine" if owner.host == socket.gethostname() else f"host {owner.host!r}"
    who = f"process {owner.process} on {here}, since {owner.since}"
  remedy = "wait for it" if sure else f"if that has ended, remove {str(path)!r}"
  return f"is being written by {who}; {remedy}, or choose another --out"


def _taken_over(before: Owner) -> str:
  return f"process {before.process}, which wrote here since {before.since}, is gone"
