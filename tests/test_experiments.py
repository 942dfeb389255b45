"""Every experiment runs its smoke size in process, prints its table, and leaves committed results alone."""

import importlib
import json
import os
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TABLES = (
  "balance_benchmark",
  "compare",
  "mimo",
  "bogc",
  "mla",
  "panel",
  "missing_digits",
  "missing_prediction",
  "stronger_modality",
)


def test_every_module_is_covered():
  found = {p.stem for p in (ROOT / "experiments").glob("*.py") if not p.stem.startswith("_")}
  # These have no table of methods; the last is tested with the rules.
  assert found == {*TABLES, "fusion_heads", "i2m2", "mdrnn", "provable_mml", "rule_properties"}


SLOW = (
  "balance_benchmark",
  "bogc",
  "mla",
  "missing_digits",
  "missing_prediction",
  "stronger_modality",
)  # beyond a minute


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in TABLES]
)
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


def results() -> dict[pathlib.Path, bytes]:
  return {p: p.read_bytes() for p in (ROOT / "experiments" / "results").iterdir()}


def test_provable_av_mnist_smoke(capsys):
  from experiments import provable_mml

  before = results()
  provable_mml.main(["--smoke", "--av-mnist"])
  printed = capsys.readouterr().out
  lines = [line for line in printed.splitlines() if line.startswith("| 0.4 | 12 | n/a |")]
  assert len(lines) == 1 and lines[0].count("±") == 5  # three subsets, two gammas
  assert "versions: mmfuse" in printed and results() == before


def test_a_fraction_is_drawn_by_class():
  from experiments import _provable_av_mnist

  label = np.repeat([0, 1, 2], [50, 30, 20])
  rows = _provable_av_mnist.draw(label, 0.1, seed=0)
  assert np.bincount(label[rows]).tolist() == [5, 3, 2] and len(set(rows)) == 10
  assert not np.array_equal(rows, _provable_av_mnist.draw(label, 0.1, seed=1))
  assert np.bincount(label[_provable_av_mnist.draw(label, 0.01, 0)]).tolist() == [1, 1, 1]


def test_fusion_heads_smoke(capsys):
  from experiments import fusion_heads

  before = results()
  fusion_heads.main(["--smoke"])
  printed = capsys.readouterr().out
  for head in ("concat", "tensor", "low_rank", "low_rank_frozen"):
    assert f"\n| {head} | " in printed or f"\n| {head} (best fused) | " in printed
  assert "versions: mmfuse" in printed and results() == before
  assert all(word in fusion_heads.__doc__ for word in ("Claim", "Command:", "Expected:", "--smoke"))


def test_no_modality_alone_tells_a_product():
  """Of four columns each way: the sign of x1 . x2 is that of neither; a linear map of both is at chance."""
  from experiments import fusion_heads
  from mmfuse import metrics

  for label, expected in (("multiplicative", 0.5), ("additive", 0.0)):
    splits = fusion_heads.make_data(label, {"train": 4000, "validation": 10, "test": 4000})
    wrong = metrics.latent_quality(
      splits.train.inputs, splits.train.label, heldout=(splits.test.inputs, splits.test.label)
    )
    assert wrong == pytest.approx(expected, abs=0.04)
    x = splits.test.inputs
    if label == "multiplicative":  # the product of the columns says it
      products = np.stack([x["x1"][:, i] * x["x2"][:, i] for i in range(fusion_heads.COLUMNS)], 1)
      assert metrics.latent_quality(products, splits.test.label) < 0.02


def test_spreads_by_hand():
  from experiments import fusion_heads

  runs = {"a": (0.1, 0.3), "b": (0.5, 0.5)}
  records = [{"method": m, "test": {"fused": v}} for m, values in runs.items() for v in values]
  between, within = fusion_heads.spreads(records)
  assert between == pytest.approx(0.3 / 2**0.5)
  assert within == pytest.approx((0.02 / 2) ** 0.5)


def test_contrasts_of_mla_are_paired():
  from experiments import mla

  scores = {"mla": (0.7, 0.8, 0.9), "mla_off": (0.6, 0.7, 0.8), "mla_bb_add": (0.6, 0.8, 0.7)}
  records = [
    {"method": m, "seed": seed, "test": {"fused": v, "audio": v / 2, "image": 0.5}}
    for m, values in scores.items()
    for seed, v in reversed(list(enumerate(values)))
  ]
  table = mla.contrast_table(records)
  assert "| mla less mla_off | n/a | +10.0 | +5.0 | +0.0 ± 0.0 |" in table
  assert "| mla_bb_add less mla_off | n/a | +0.0 ± 24.8 |" in table
  assert "mla_released" not in table and "mla_mean" not in table
  assert "| mla | n/a | 80.0 ± 24.8 | n/a |" in mla.paper_table(records)


def test_mdrnn_smoke(capsys):
  from experiments import mdrnn

  mdrnn.main(["--smoke"])
  assert "| mdrnn_pcd |" in capsys.readouterr().out


@pytest.mark.parametrize(
  "more", [pytest.param([], marks=pytest.mark.slow), ["--recipe", "--rows", "inter_lf"]]
)
def test_i2m2_smoke(more, capsys):
  from experiments import i2m2

  i2m2.main(["--smoke", *more, *(["--part", "av_mnist"] if more else [])])
  printed = capsys.readouterr().out
  assert ("| inter_only |" in printed) == (not more)
  assert "| inter_lf | n/a |" in printed


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
