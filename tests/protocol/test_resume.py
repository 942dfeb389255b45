"""Interrupted anywhere, a comparison ends with what it has and goes on to the same numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mmfuse import train
from mmfuse.protocol import _ahead, _finish, _search
from mmfuse.protocol._progress import Progress

from ._helpers import COMMON, MINE, arrays, call, numbers, records

OPTIONS = ("--data", "my.npz", "--methods", "joint,uniform", "--out", "run", *COMMON)


@pytest.fixture
def quick(monkeypatch):
  """No plots; step times as they come out of the first measurement."""
  monkeypatch.setattr(_finish, "_can_draw", lambda: False)


def _interrupt(monkeypatch, after: int) -> list:
  """Ctrl-C in the given epoch, counted over all runs from 0; returns (row, seed, epoch) seen."""
  seen = []

  def epoch(self, row, fold, entry):
    if len(seen) >= after:
      raise KeyboardInterrupt
    seen.append((row.name, entry["seed"], entry["epoch"]))

  monkeypatch.setattr(Progress, "epoch", epoch)
  return seen


@pytest.mark.slow
def test_interrupted_in_a_run_and_between_rows_it_ends_with_the_same_numbers(
  finished, place, monkeypatch, quick
):
  # One run after the other. Inside the second, after its first epoch: nothing is complete yet.
  for module in (_search, _ahead):
    monkeypatch.setattr(module, "cores", lambda: 1)
  _interrupt(monkeypatch, after=3)
  said = call(place, "compare", *OPTIONS, "--checkpoint-seconds", "0")
  assert said.code == 130 and "before the first row was complete" in said.err
  assert not (place / "run" / "results.jsonl").exists()
  assert (place / "run/runs/joint/seed0-lr0.01.json").exists()
  assert (place / "run/runs/joint/seed1-lr0.01.checkpoint").exists()

  # The first run is not trained again, the second one goes on after its first epoch.
  seen = _interrupt(monkeypatch, after=11 + 5)
  said = call(place, "compare", *OPTIONS, "--resume")
  assert said.code == 130 and "interrupted: 1 of 2 rows are complete" in said.out
  assert seen[0] == ("joint", 1, 1)
  assert [r for r in seen if r[0] == "joint"][1:] == [
    ("joint", s, e) for s in (0, 1, 0, 1, 2) for e in (0, 1)
  ]
  assert seen[-1][0] == "uniform"
  assert {r["method"] for r in records(place / "run")} == {"joint"}
  assert "interrupted: 1 of 2 rows" in (place / "run" / "table.md").read_text()
  assert numbers(place / "run") == numbers(finished.run, ["joint"])

  # Two runs at a time.
  for module in (_search, _ahead):
    monkeypatch.setattr(module, "cores", lambda: 2)
  seen = _interrupt(monkeypatch, after=3)
  said = call(place, "compare", *OPTIONS, "--resume", "--checkpoint-seconds", "0")
  assert said.code == 130 and {r[0] for r in seen} == {"uniform"}
  assert numbers(place / "run") == numbers(finished.run, ["joint"])

  seen = _interrupt(monkeypatch, after=1000)
  said = call(place, "compare", *OPTIONS, "--resume")
  assert said.code == 0 and not [r for r in seen if r[0] == "joint"]
  assert numbers(place / "run") == numbers(finished.run, ["joint", "uniform"])
  assert "interrupted" not in (place / "run" / "table.md").read_text()


def test_sigterm_ends_as_ctrl_c_does_with_the_table_of_what_is_complete(
  finished, place, monkeypatch, quick
):
  seen = []

  def epoch(self, row, fold, entry):
    seen.append((row.name, entry["epoch"]))
    if row.name == "uniform":
      os.kill(os.getpid(), signal.SIGTERM)  # in every epoch: a scheduler may insist

  monkeypatch.setattr(Progress, "epoch", epoch)
  monkeypatch.setattr(_search, "cores", lambda: 2)
  monkeypatch.setattr(_ahead, "cores", lambda: 1)  # else uniform's first run comes before its turn
  before = signal.getsignal(signal.SIGTERM)
  said = call(place, "compare", *OPTIONS)
  assert said.code == 143 and "interrupted: 1 of 2 rows are complete" in said.out
  assert signal.getsignal(signal.SIGTERM) is before
  # Of two runs at a time, each ends at its next epoch.
  assert 1 <= len([r for r in seen if r[0] == "uniform"]) <= 4
  assert numbers(place / "run") == numbers(finished.run, ["joint"])
  assert "| joint" in (place / "run" / "table.md").read_text()


@pytest.mark.parametrize("after", [2, 7])
def test_interrupted_with_the_next_row_under_way_it_ends_with_the_same_numbers(
  finished, place, monkeypatch, quick, after
):
  for module in (_search, _ahead):
    monkeypatch.setattr(module, "cores", lambda: 2)
  seen = _interrupt(monkeypatch, after=after)
  assert call(place, "compare", *OPTIONS, "--checkpoint-seconds", "0").code == 130
  assert {r[0] for r in seen} <= {"joint", "uniform"}
  _interrupt(monkeypatch, after=1000)
  assert call(place, "compare", *OPTIONS, "--resume").code == 0
  assert numbers(place / "run") == numbers(finished.run, ["joint", "uniform"])


def test_sigterm_before_a_row_is_complete_is_a_sentence(place, monkeypatch, quick):
  monkeypatch.setattr(Progress, "epoch", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
  said = call(place, "compare", *OPTIONS)
  assert said.code == 143
  assert said.err.endswith(
    "mmfuse: interrupted before the first row was complete; --resume goes on\n"
  )


def test_interrupted_while_steps_are_timed_the_table_is_there(finished, monkeypatch, quick):
  def times(*args, **options):
    raise KeyboardInterrupt

  monkeypatch.setattr(train, "interleaved_step_times", times)
  kept = {p: p.read_bytes() for p in finished.run.iterdir() if p.is_file()}
  (finished.run / "step_times.json").unlink()
  argv = json.loads((finished.run / "run.json").read_text())["command"].split()[1:]
  said = call(finished.folder, *argv, "--resume")
  table = (finished.run / "table.md").read_text()
  for path, content in kept.items():
    path.write_bytes(content)
  assert said.code == 130 and "step times were not measured" in table
  assert "| joint" in table and "step time |" not in table


def test_a_finished_run_is_written_again_without_training(finished, monkeypatch, tmp_path, quick):
  before = {p: p.read_bytes() for p in (finished.run / "runs").rglob("*") if p.is_file()}
  lines = (finished.run / "results.jsonl").read_text()
  (finished.run / "table.md").rename(tmp_path / "table.md")
  argv = json.loads((finished.run / "run.json").read_text())["command"].split()[1:]

  def never(*args, **kwargs):
    raise AssertionError("nothing is left to train or to time")

  monkeypatch.setattr(train, "fit", never)
  monkeypatch.setattr(train, "interleaved_step_times", never)
  said = call(finished.folder, *argv, "--resume")
  assert said.code == 0, said
  assert "\nevery run is there: only the report is written\n" in said.out
  assert (finished.run / "results.jsonl").read_text() == lines
  assert (finished.run / "table.md").read_text() == (tmp_path / "table.md").read_text()
  assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize(
  "options, words",
  [
    (("--epochs", "3"), "the configuration differs in epochs"),
    (("--data", "other.npz"), "the data differ from those of the run"),
  ],
)
def test_another_configuration_or_other_data_are_refused(finished, options, words):
  np.savez(finished.folder / "other.npz", **arrays(seed=1))
  argv = json.loads((finished.run / "run.json").read_text())["command"].split()[1:]
  before = {p: p.read_bytes() for p in finished.run.rglob("*") if p.is_file()}
  for name, value in zip(options[::2], options[1::2]):
    argv[argv.index(name) + 1] = value
  said = call(finished.folder, *argv, "--resume")
  assert said.code == 2 and words in said.err and said.err.count("\n") == 1
  assert {p: p.read_bytes() for p in finished.run.rglob("*") if p.is_file()} == before


def _argv(run, **changes):
  """The command of a run with other options, to be continued."""
  argv = json.loads((run / "run.json").read_text())["command"].split()[1:]
  for name, value in changes.items():
    argv[argv.index(f"--{name}") + 1] = value
  return [*argv, "--resume"]


def test_fewer_methods_show_what_is_there_and_train_nothing_else(
  finished, place, monkeypatch, quick
):
  shutil.copytree(finished.run, place / "run")
  for name in (
    "uniform",
    "twin",
  ):  # not complete: of one, a run is missing and no choice is written
    (place / "run" / "runs" / name / "choice.json").unlink()
  next((place / "run" / "runs" / "uniform").glob("seed2-*.json")).unlink()
  info = (place / "run" / "run.json").read_text()
  seen = _interrupt(monkeypatch, after=1000)
  said = call(place, *_argv(place / "run", methods="joint"))
  assert said.code == 0 and not seen, said
  kept = ["joint", "late_average", "unimodal/a", "unimodal/b"]
  assert list(dict.fromkeys(r["method"] for r in records(place / "run"))) == kept
  assert numbers(place / "run") == numbers(finished.run, kept)
  assert "note: not named now, but complete in the run: late_average, unimodal/a" in said.out
  assert "note: not named now, and not complete in the run: uniform, twin" in said.out
  assert "not named now" in (place / "run" / "table.md").read_text()
  assert (place / "run" / "run.json").read_text() == info
  # An own method whose file has changed cannot be built again: it is left out, not refused.
  (place / "mine.py").write_text(MINE + "\n# edited\n")
  said = call(place, *_argv(place / "run", methods="uniform"))
  assert said.code == 0 and {row for row, _, _ in seen} == {"uniform"} and len(seen) == 2
  assert "mine.py:twin of the run is not shown: its file has changed" in said.out
  assert numbers(place / "run") == numbers(
    finished.run, ["joint", "uniform", "late_average", "unimodal/a", "unimodal/b"]
  )


@pytest.mark.parametrize(
  "change, words",
  [
    ({"row": "uniform"}, "its row is 'uniform', expected 'joint'"),
    ({"data": "e" * 64}, "its data is 'eee"),
    ({"config": "0" * 16}, "its config is '0000"),
    ({"seed": 1}, "was renamed: it is the run of another seed or trial"),
    ({"rate": 0.0100000001}, "was renamed"),
  ],
)
def test_a_run_file_of_another_configuration_is_refused_before_anything_is_trained(
  finished, place, monkeypatch, change, words, quick
):
  shutil.copytree(finished.run, place / "run")
  path = place / "run" / "runs" / "joint" / "seed0-lr0.01.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
  monkeypatch.setattr(train, "fit", None)
  said = call(place, *_argv(place / "run"))
  assert said.code == 2 and "joint/seed0-lr0.01.json'" in said.err and words in said.err
  assert said.err.count("\n") == 1


def test_weights_of_another_run_are_refused(finished, place, quick):
  shutil.copytree(finished.run, place / "run")
  runs = place / "run" / "runs" / "joint"
  for path in runs.glob("seed1-*.safetensors"):
    path.write_bytes((runs / path.name.replace("seed1", "seed0")).read_bytes())
  said = call(place, *_argv(place / "run"))
  assert said.code == 2 and "is of another run: its seed is 0, expected 1" in said.err


def test_an_edited_rule_is_refused(finished):
  argv = json.loads((finished.run / "run.json").read_text())["command"].split()[1:]
  (finished.folder / "mine.py").write_text(MINE + "\n# edited\n")
  said = call(finished.folder, *argv, "--resume")
  (finished.folder / "mine.py").write_text(MINE)
  assert said.code == 2 and "the code of 'mine.py:twin' was edited" in said.err


def test_the_same_file_elsewhere_is_the_same_data(finished, tmp_path, quick):
  (finished.folder / "my.npz").rename(finished.folder / "moved.npz")
  argv = json.loads((finished.run / "run.json").read_text())["command"].split()[1:]
  argv[argv.index("--data") + 1] = "moved.npz"
  said = call(finished.folder, *argv, "--resume")
  (finished.folder / "moved.npz").rename(finished.folder / "my.npz")
  assert said.code == 0, said


def test_killed_in_the_middle_it_goes_on_to_the_same_numbers(finished, place, quick):
  command = [sys.executable, "-m", "mmfuse", "compare", *OPTIONS, "--checkpoint-seconds", "0"]
  with open(place / "log", "w") as log:
    process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, start_new_session=True)
  first = place / "run/runs/joint/seed0-lr0.01.json"
  until = time.monotonic() + 240
  while not first.exists() and process.poll() is None and time.monotonic() < until:
    time.sleep(0.05)
  alive = process.poll() is None
  if alive:
    os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert alive and first.exists(), (place / "log").read_text()
  assert not (place / "run" / "results.jsonl").exists()
  said = call(place, "compare", *OPTIONS, "--resume")
  assert said.code == 0, said
  assert numbers(place / "run") == numbers(finished.run, ["joint", "uniform"])
