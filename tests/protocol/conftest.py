"""A finished comparison, trained once, and builders that are traced once for all tests."""

import contextlib
import io
import json
import pathlib
from typing import NamedTuple

import numpy as np
import pytest

from mmfuse import train
from mmfuse.cli import main
from mmfuse.protocol._rows import Row

MINE = '''
"""Builders of a user."""
from mmfuse import methods, objectives, train


def twin(model, learning_rate=0.03, *, tx=None):
  """`joint` under another name."""
  return train.supervised(model, objectives.fused, tx or train.sgd(learning_rate))


def tripled(model, learning_rate=0.03, *, tx=None):
  """`uniform` with three times the losses."""
  def objective(outputs, batch, **extra):
    losses = objectives.fused_and_unimodal(outputs, batch, **extra)
    return {name: 3.0 * loss for name, loss in losses.items()}

  return train.supervised(model, objective, tx or train.sgd(learning_rate))


def broken(model, learning_rate=0.03, *, tx=None):
  """A rule with a mistake."""
  raise RuntimeError("no such luck")
'''
TIMINGS = ("seconds_per_step", "relative_step_time")
COMMON = ("--epochs", "2", "--batch-size", "16", "--seeds", "3")


def arrays(rows=80, seed=0, modalities=("a", "b"), **more):
  """Two classes, seen better in `a` than in `b`."""
  rng = np.random.default_rng(seed)
  label = np.arange(rows) % 2
  shift = {m: 1.0 - 0.4 * i for i, m in enumerate(modalities)}
  made = {m: rng.normal(size=(rows, 4)) + s * label[:, None] for m, s in shift.items()}
  split = np.asarray(["train", "train", "train", "validation", "test"])[np.arange(rows) // 2 % 5]
  return {"label": label, "split": split, **made, **more}


class Said(NamedTuple):
  """What a command answered."""

  code: int
  out: str
  err: str


def call(folder, *argv) -> Said:
  """One command in `folder`, in this process."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = main([str(a) for a in argv])
  return Said(code, out.getvalue(), err.getvalue())


def records(folder) -> list[dict]:
  """The lines of results.jsonl."""
  return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def numbers(folder, methods=None) -> dict:
  """{(method, seed, fold): the record without its timings}."""
  return {
    (r["method"], r["seed"], r["fold"]): {k: v for k, v in r.items() if k not in TIMINGS}
    for r in records(folder)
    if methods is None or r["method"] in methods
  }


@pytest.fixture(scope="session", autouse=True)
def _builders_are_traced_once():
  """The same row of the same model is the same Method, so that a second run compiles nothing."""
  build, made = Row.build, {}

  def cached(self, cfg, model, trial):
    key = (self.name, repr(sorted(self.fixed.items())), self.source, repr(model), trial.hyper,
           cfg.optimizer, cfg.schedule, cfg.weight_decay)  # fmt: skip
    if key not in made:
      made[key] = build(self, cfg, model, trial)
    return made[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Row, "build", cached)
    yield


class Finished(NamedTuple):
  """A comparison that ran to its end."""

  folder: pathlib.Path  # where it was called; the run is in `folder / "run"`
  said: Said
  fits: list[dict]  # the arguments of every train.fit

  @property
  def run(self) -> pathlib.Path:
    """The output folder."""
    return self.folder / "run"


METHODS = "joint,uniform,mine.py:twin,late_average,unimodal"


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
  """Six rows x 3 seeds, three rates."""
  folder = tmp_path_factory.mktemp("finished")
  np.savez(folder / "my.npz", **arrays())
  (folder / "mine.py").write_text(MINE)
  fits, fit = [], train.fit

  def recorded(method, splits, **options):
    fits.append({"method": method, "splits": splits, **options})
    return fit(method, splits, **options)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, "fit", recorded)
    said = call(folder, "compare", "--data", "my.npz", "--methods", METHODS, "--out", "run", *COMMON)
  return Finished(folder, said, fits)


@pytest.fixture
def place(tmp_path) -> pathlib.Path:
  """An empty folder with the user's data and builders."""
  np.savez(tmp_path / "my.npz", **arrays())
  (tmp_path / "mine.py").write_text(MINE)
  return tmp_path
