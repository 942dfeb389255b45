"""Tiny data, a user's file of builders, and commands called in this process."""

import contextlib
import io
import json
from typing import NamedTuple

import numpy as np

from mmfuse import train
from mmfuse.cli import main
from mmfuse.protocol import _finish

MINE = '''
"""Builders and an encoder of a user."""
import flax.linen as nn

from mmfuse import objectives, train


class Line(nn.Module):
  """The smallest encoder there is."""

  @nn.compact
  def __call__(self, x, mask, *, train):
    return nn.Dense(3)(x)


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
TIMINGS = ("seconds_per_step", "hook_seconds_per_step", "relative_step_time")
QUICK = ("--tune", "1", "--seeds", "1", "--epochs", "1", "--batch-size", "16")
COMMON = ("--epochs", "2", "--batch-size", "16", "--seeds", "3")


def arrays(rows=80, seed=0, modalities=("a", "b"), **more):
  """Two classes, seen better in `a` than in `b`."""
  rng = np.random.default_rng(seed)
  label = np.arange(rows) % 2
  shift = {m: 1.0 - 0.4 * i for i, m in enumerate(modalities)}
  made = {m: rng.normal(size=(rows, 4)) + s * label[:, None] for m, s in shift.items()}
  split = np.asarray(["train", "train", "train", "validation", "test"])[np.arange(rows) // 2 % 5]
  return {"label": label, "split": split, **made, **more}


def quick(monkeypatch) -> None:
  """No plots and no step times: other tests look at them."""
  monkeypatch.setattr(_finish, "_can_draw", lambda: False)
  times = lambda built, *_, **__: {name: [1.0] for name in built}
  monkeypatch.setattr(train, "interleaved_step_times", times)


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
