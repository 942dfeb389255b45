"""Every experiment runs its smoke size in process, prints its table, and leaves committed results alone."""

import importlib
import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TABLES = ("balance_benchmark", "compare", "mimo", "bogc", "mla")


def test_every_module_is_covered():
  found = {p.stem for p in (ROOT / "experiments").glob("*.py") if not p.stem.startswith("_")}
  # The first has no table of methods, the second is tested with the rules.
  assert found == {*TABLES, "mdrnn", "provable_mml", "rule_properties"}


@pytest.mark.parametrize("name", TABLES)
def test_smoke(name, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  before = {p: p.read_bytes() for p in (ROOT / "experiments" / "results").glob("*.md")}
  module = importlib.import_module(f"experiments.{name}")
  module.main(["--smoke"])
  printed = capsys.readouterr().out
  assert "| joint |" in printed and "versions: mmfuse" in printed
  assert {p: p.read_bytes() for p in before} == before
  doc = module.__doc__
  assert all(
    word in doc
    for word in ("Claim", "Command:", "Expected:", "--smoke", f"experiments/results/{name}.md")
  )


def test_provable_smoke(capsys):
  from experiments import provable_mml

  provable_mml.main(["--smoke"])
  assert "| modalities |" in capsys.readouterr().out


def test_mdrnn_smoke(capsys):
  from experiments import mdrnn

  mdrnn.main(["--smoke"])
  assert "| mdrnn_pcd |" in capsys.readouterr().out


@pytest.mark.needs_data
def test_mdrnn_mnist_smoke(capsys, tmp_path, monkeypatch):
  from experiments import _common, mdrnn

  if not os.environ.get("MMFUSE_DATA_DIR"):
    pytest.skip("MMFUSE_DATA_DIR is not set: no MNIST to read")
  monkeypatch.setattr(_common, "RESULTS", tmp_path)
  mdrnn.main(["--mnist", "--smoke", "--seeds", "1"])
  printed = capsys.readouterr().out
  for name in ("pcd", "cdpl", "mp"):
    assert f"| {name} | ~" in printed and f"| {name}, 10 |" in printed
  assert "| hybrid | n/a |" in printed and "versions: mmfuse" in printed
  assert not list(tmp_path.iterdir())  # a smoke run commits nothing


def test_overhead_bench(capsys):
  from experiments.bench import method_overhead

  method_overhead.main(["--smoke", "--methods", "mimo", "mmpareto"])
  rows = json.loads(capsys.readouterr().out)["rows"]
  assert set(rows) == {"joint", "mimo", "mmpareto"}
  assert rows["joint"]["flops"] == 1.0
  assert rows["mmpareto"]["flops"] > rows["mimo"]["flops"]


def test_lenet_bench(capsys):
  from experiments.bench import lenet_step

  lenet_step.main(["--smoke", "--batch-size", "4"])
  found = json.loads(capsys.readouterr().out)
  assert found["mmfuse_ms"] > 0
  assert (found["ratio"] == "n/a") == (found["pytorch_ms"] == "n/a")
