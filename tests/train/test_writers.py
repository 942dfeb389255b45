"""Writers: JSON Lines on disk, and the adapters hand every number to their library."""

import json
import sys
import types

from mmfuse import train
from mmfuse.train._writers import scalars

ENTRY = {
  "seed": 1,
  "learning_rate": 0.03,
  "epochs": 2,
  "phase": "train",
  "epoch": 0,
  "loss/fused": 1.5,
  "rule/weights": [0.25, 0.75],
  "validation": {"fused": {"accuracy": 0.5}},
}


def test_scalars_flatten_and_leave_words_out():
  assert dict(scalars(ENTRY)) == {
    "seed": 1.0,
    "learning_rate": 0.03,
    "epochs": 2.0,
    "epoch": 0.0,
    "loss/fused": 1.5,
    "rule/weights/0": 0.25,
    "rule/weights/1": 0.75,
    "validation/fused/accuracy": 0.5,
  }


def test_jsonl_appends(tmp_path):
  write = train.jsonl_writer(tmp_path / "deep" / "log.jsonl")
  write(ENTRY)
  write({**ENTRY, "epoch": 1})
  lines = (tmp_path / "deep" / "log.jsonl").read_text().splitlines()
  assert [json.loads(line)["epoch"] for line in lines] == [0, 1] and json.loads(lines[0]) == ENTRY


def test_tensorboard_gets_every_scalar(monkeypatch, tmp_path):
  seen = []

  class SummaryWriter:
    def __init__(self, folder):
      self.folder = folder

    def add_scalar(self, name, value, step):
      seen.append((self.folder, name, value, step))

    def flush(self):
      pass

  monkeypatch.setitem(
    sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter)
  )
  train.tensorboard_writer(tmp_path)(ENTRY)
  assert (str(tmp_path / "seed1-lr0.03"), "train/loss/fused", 1.5, 0) in seen and len(seen) == 8


def test_wandb_logs_once_an_epoch(monkeypatch):
  logged, options = [], {}
  fake = types.SimpleNamespace(
    init=lambda **o: options.update(o) or types.SimpleNamespace(log=logged.append)
  )
  monkeypatch.setitem(sys.modules, "wandb", fake)
  train.wandb_writer(project="p")(ENTRY)
  assert options == {"project": "p"} and logged[0]["seed1/train/validation/fused/accuracy"] == 0.5
