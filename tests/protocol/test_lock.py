"""One owner per output folder, whoever comes first, second or after a crash."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mmfuse.protocol import UsageError
from mmfuse.protocol._lock import Held, Lock
from mmfuse.protocol._store import Store

from ._helpers import arrays

HOLD = """
import pathlib, sys, time
from mmfuse.protocol._lock import Lock
lock = Lock.take(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def _holder(folder):
  """Another process that holds the lock of `folder` until it is killed."""
  command = [sys.executable, "-c", HOLD, str(folder)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      assert process.stdout.readline() == "held\n"
      yield process
    finally:
      process.kill()


def _write(path, **owner):
  there = {"process": 4711, "host": socket.gethostname(), "since": "2026-01-01 10:00:00", **owner}
  path.write_text(json.dumps(there))


def _said(out, **options):
  """(the store, what was printed)."""
  text = io.StringIO()
  with contextlib.redirect_stdout(text):
    store = Store.open(str(out), resume=False, **options)
  return store, text.getvalue()


def test_a_lock_names_its_owner_and_is_gone_afterwards(tmp_path):
  lock = Lock.take(tmp_path / "run")
  assert [p.name for p in tmp_path.iterdir()] == [".run.lock"]
  owner = json.loads((tmp_path / ".run.lock").read_text())
  assert (owner["process"], owner["host"]) == (os.getpid(), socket.gethostname())
  with pytest.raises(Held, match=f"process {os.getpid()} on this machine, since {owner['since']}"):
    Lock.take(tmp_path / "run")
  assert json.loads((tmp_path / ".run.lock").read_text()) == owner
  lock.release()
  lock.release()
  assert not list(tmp_path.iterdir())
  Lock.take(tmp_path / "run").release()


def test_a_running_process_is_respected_and_a_killed_one_leaves_nothing_in_the_way(tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  (run / "text").write_text("theirs")
  with _holder(run) as process:
    for resume in (False, True):
      (run / "run.json").write_text("{}")
      with pytest.raises(UsageError, match=f"'.*run' is being written by process {process.pid} on"):
        Store.open(str(run), resume=resume)
    assert (run / "text").read_text() == "theirs" and not (tmp_path / "run-1").exists()
    elsewhere, said = _said(run, elsewhere=True)
    assert elsewhere.folder == tmp_path / "run-1" and f"process {process.pid}" in said
    elsewhere.close()
  store, said = _said(run)
  assert f"process {process.pid}" in said and "is gone" in said
  assert (tmp_path / "run-2" / "text").read_text() == "theirs"  # run-1 was taken above
  store.close()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run-1", "run-2"]


def test_an_owner_on_another_machine_is_not_second_guessed(tmp_path):
  path = tmp_path / ".run.lock"
  _write(path, host="gpu7.elsewhere")
  before = path.read_text()
  with pytest.raises(UsageError) as error:
    Store.open(str(tmp_path / "run"), resume=False)
  assert "process 4711 on host 'gpu7.elsewhere'" in str(error.value)
  assert f"remove {str(path)!r}" in str(error.value)
  assert path.read_text() == before and not (tmp_path / "run").exists()


def test_without_locks_of_the_kernel_the_first_file_counts(tmp_path, monkeypatch):
  import mmfuse.protocol._lock as module

  monkeypatch.setattr(module, "_flock", lambda descriptor: None)
  lock = Lock.take(tmp_path / "run")
  with pytest.raises(Held, match=r"if that has ended, remove '.*\.run\.lock'"):
    Lock.take(tmp_path / "run")
  lock.release()
  Lock.take(tmp_path / "run").release()


def test_links_and_other_spellings_are_the_same_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "real").mkdir()
  (tmp_path / "real" / "text").write_text("earlier")
  (tmp_path / "link").symlink_to("real")
  store = Store.open("link", resume=False)
  for other in ("real", "./real/", "real/../link", str(tmp_path / "link")):
    with pytest.raises(UsageError, match="is being written"):
      Store.open(other, resume=False)
  assert (tmp_path / "real-1" / "text").read_text() == "earlier"
  assert (tmp_path / "link").is_symlink() and store.folder.is_dir()
  store.close()


def test_a_folder_in_which_another_process_writes_is_not_moved(tmp_path):
  inner = tmp_path / "run" / "deep"
  inner.mkdir(parents=True)
  lock = Lock.take(inner)
  with pytest.raises(UsageError, match="cannot be moved aside: a folder in it is being written"):
    Store.open(str(tmp_path / "run"), resume=False)
  lock.release()
  assert not (tmp_path / ".run.lock").exists()
  Store.open(str(tmp_path / "run"), resume=False).close()
  assert (tmp_path / "run-1" / "deep").is_dir()


def test_a_place_aside_that_another_process_is_about_to_fill_is_passed_over(tmp_path):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "text").write_text("earlier")
  theirs = Lock.take(tmp_path / "run-1")
  Store.open(str(tmp_path / "run"), resume=False).close()
  theirs.release()
  assert (tmp_path / "run-2" / "text").exists() and not (tmp_path / "run-1").exists()


def test_where_nothing_can_be_moved_the_lock_lies_inside(tmp_path, monkeypatch):
  access, parent = os.access, tmp_path / "mount"
  (parent / "run").mkdir(parents=True)
  monkeypatch.setattr(os, "access", lambda p, m: str(p) != str(parent) and access(p, m))
  store = Store.open(str(parent / "run"), resume=False)
  assert [p.name for p in (parent / "run").iterdir()] == [".lock"]
  with pytest.raises(UsageError, match="is being written"):
    Store.open(str(parent / "run"), resume=False)
  store.close()
  assert not list((parent / "run").iterdir())


def start(folder, seed):
  """`mmfuse compare --out X` on data of its own, as a process."""
  np.savez(folder / f"my{seed}.npz", **arrays(40, seed=seed))
  argv = ("--methods", "joint,uniform", "--tune", "1", "--seeds", "1", "--epochs", "1")
  command = [
    sys.executable,
    "-m",
    "mmfuse",
    "compare",
    "--data",
    f"my{seed}.npz",
    *argv,
    "--out",
    "X",
  ]
  return subprocess.Popen(
    command,
    cwd=folder,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, "PYTHONPATH": os.getcwd()},
  )


def outcome(folder, offset):
  """Two commands on one folder, `offset` seconds apart -> their exit codes; never a mixed number."""
  first = start(folder, 0)
  time.sleep(offset)
  second = start(folder, 1)
  said = [p.communicate()[0] for p in (first, second)]
  codes = [p.returncode for p in (first, second)]
  assert set(codes) <= {0, 2} and 0 in codes, said
  for code, text in zip(codes, said):
    if code == 2:
      assert text.strip().splitlines()[-1].startswith("mmfuse: --out 'X' is being written"), text
  folders = [p for p in folder.iterdir() if (p / "run.json").exists()]
  assert len(folders) == codes.count(0)
  owners = set()
  for run in folders:
    mark = json.loads((run / "run.json").read_text())["data_fingerprint"]
    lines = [json.loads(t) for t in (run / "results.jsonl").read_text().splitlines()]
    assert [r["method"] for r in lines] == ["joint", "uniform"]
    assert {r["data_fingerprint"] for r in lines} == {mark}
    files = [json.loads(p.read_text()) for p in run.glob("runs/*/*.json")]
    assert len(files) == 4 and {f["data"] for f in files} == {mark}
    owners.add(mark)
  assert len(owners) == len(folders)  # each run is of one command, and no command has two
  assert not list(folder.glob(".*.lock"))
  return codes


def test_two_commands_on_one_folder_never_mix(tmp_path):
  assert sorted(outcome(tmp_path, offset=0.3)) in ([0, 2], [0, 0])
