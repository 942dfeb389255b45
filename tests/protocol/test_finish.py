"""What a finished comparison leaves on disk."""

import csv
import json
import re

import numpy as np

from mmfuse import data, report, tasks, train
from mmfuse.protocol import _baselines, _finish

from ._helpers import arrays, call, records

STABLE = (
  "method",
  "seed",
  "fold",
  "selected_epoch",
  "learning_rate",
  "tuning",
  "validation",
  "test",
  "seconds_per_step",
  "hook_seconds_per_step",
  "config_hash",
  "data_fingerprint",
  "versions",
)
FURTHER = (
  "metric",
  "diverged_at",
  "validation_loss",
  "scores",
  "contribution",
  "shapley",
  "subsets",
  "probe",
  "conflict_rate",
  "relative_step_time",
  "parameters",
  "gradient_evaluations",
)
ROWS = ("joint", "uniform", "twin", "late_average", "unimodal/a", "unimodal/b")


def test_every_file_is_there_and_nothing_half_written(finished):
  assert finished.said.code == 0, finished.said
  names = {p.name for p in finished.run.iterdir()}
  tables = {"results.jsonl", "table.md", "table.csv", "index.html", "curves.png", "modalities.png"}
  assert names == {*tables, "run.json", "schema.json", "runs", "step_times.json", "baselines.json"}
  left = [p for p in finished.run.rglob("*") if p.name.endswith(".tmp") or "checkpoint" in p.name]
  assert not left


def test_one_line_per_method_and_seed_with_the_stable_fields(finished):
  found = records(finished.run)
  assert [(r["method"], r["seed"], r["fold"]) for r in found] == [
    (m, s, None) for m in ROWS for s in range(3)
  ]
  for r in found:
    assert set(r) == {*STABLE, *FURTHER}
    assert set(r["validation"]) == set(r["test"]) == {"fused", "a", "b"}
    assert r["scores"]["validation"]["accuracy"] == r["validation"]["fused"]
    assert r["scores"]["validation"]["nll"] > 0
    assert 0 <= r["selected_epoch"] < 2 and r["seconds_per_step"] > 0
    assert {"cpu_count", "device_count", "XLA_FLAGS", "jax"} <= set(r["versions"])
    assert r["diverged_at"] is None
    assert [s["modalities"] for s in r["subsets"]] == [["a"], ["b"], ["a", "b"]]
  assert len({r["config_hash"] for r in found}) == len(ROWS)
  assert len({r["data_fingerprint"] for r in found}) == 1


def test_a_head_that_does_not_exist_is_null_never_a_number(finished):
  for r in records(finished.run):
    for split in ("validation", "test"):
      scores = r[split]
      assert isinstance(scores["fused"], float)
      if r["method"] == "unimodal/a":
        assert scores["b"] is None and scores["a"] == scores["fused"]
      elif r["method"] == "unimodal/b":
        assert scores["a"] is None and scores["b"] == scores["fused"]
      else:
        assert isinstance(scores["a"], float) and isinstance(scores["b"], float)


def test_the_scores_are_those_of_the_saved_weights_on_the_test_rows(finished):
  labels = arrays()["label"][arrays()["split"] == "test"]
  picked = [r for r in records(finished.run) if r["method"] == "late_average"]
  table = _probabilities(finished, "late_average", 1, "test")
  assert np.mean(table.argmax(1) == labels) == picked[1]["test"]["fused"]


def _probabilities(finished, method, seed, split):
  made = arrays()
  rows = made["split"] == split
  path = finished.folder / f"{method}-{split}.npz"
  np.savez(path, a=made["a"][rows], b=made["b"][rows])
  said = call(finished.folder, "predict", "run", "--data", path, "--method", method, "--seed", seed)
  assert said.code == 0, said
  lines = list(csv.reader(said.out.splitlines()))
  return np.asarray([[float(v) for v in line[2:]] for line in lines[1:]])


def test_the_schema_of_a_sequence(tmp_path):
  made = {
    "gait": np.ones((20, 5, 3)),
    "length_gait": np.arange(20) % 5 + 1,
    "t": np.arange(20) % 4,
    "a": np.ones((20, 2)),
    "label": np.arange(20) % 2,
  }
  splits = data.from_arrays(made, encoders={"t": "embedding"})
  _finish.save_schema(tmp_path, splits, None)
  assert json.loads((tmp_path / "schema.json").read_text())["inputs"] == {
    "a": {"shape": [2], "largest": None},
    "gait": {"shape": [5, 3], "length": True, "largest": None},
    "t": {"shape": [1], "largest": 3},
  }


def test_contribution_is_what_the_fused_prediction_loses(finished):
  joint = records(finished.run)[0]
  assert set(joint["contribution"]) == {"a", "b"}
  alone = {("a", "b"): 0.9, ("b",): 0.5, ("a",): 0.8}
  lost = _finish.contribution(alone, ("a", "b"))
  assert np.isclose(lost["a"], 0.4) and np.isclose(lost["b"], 0.1)
  assert _finish.contribution({("a",): 0.8}, ("a",)) == {}


def test_the_subsets_that_are_tested():
  assert _finish.test_subsets(("b", "a")) == [(), ("a",), ("b",), ("a", "b")]
  many = tuple("abcdefg")
  assert _finish.test_subsets(many) == [many, *(tuple(m for m in many if m != out) for out in many)]


def test_shapley_values_and_conflicts_stand_in_the_records(finished):
  joint, alone = records(finished.run)[0], records(finished.run)[-1]
  assert set(joint["shapley"]) == {"a", "b"} and joint["probe"] == {}
  # They add up to the score less that of a prediction from nothing, one class for every row.
  share = np.bincount(arrays()["label"][arrays()["split"] == "test"]) / 16
  nothing = joint["test"]["fused"] - sum(joint["shapley"].values())
  assert np.isclose(share, nothing).any()
  assert alone["method"] == "unimodal/b" and alone["shapley"]["a"] == 0
  assert set(joint["conflict_rate"]) == {"a", "b"}
  assert all(0 <= v <= 1 for v in joint["conflict_rate"].values())


def test_a_probe_is_fitted_when_asked_for(finished):
  argv = json.loads((finished.run / "run.json").read_text())["command"].split()[1:]
  lines = (finished.run / "results.jsonl").read_text()
  assert call(finished.folder, *argv, "--resume", "--probe").code == 0
  joint = records(finished.run)[0]
  (finished.run / "results.jsonl").write_text(lines)
  assert set(joint["probe"]) == {"a", "b"} and all(0 <= v <= 1 for v in joint["probe"].values())


def test_the_majority_row_predicts_the_most_frequent_training_label(finished):
  splits = finished.fits[0]["splits"]
  part = splits.train.replace(label=np.where(np.arange(48) < 30, 1, 0).astype(np.int32))
  test = splits.validation.replace(label=np.where(np.arange(16) < 4, 0, 1).astype(np.int32))

  class Made:
    task, num_outputs = "classification", 2

  Made.train, Made.test = part, test
  assert _baselines.constant(Made, "test")["accuracy"] == 0.75
  # Where the label is unknown a row is neither counted nor judged.
  Made.train = part.replace(labelled=np.arange(48) >= 29)
  Made.test = test.replace(labelled=np.arange(16) < 5)
  assert round(_baselines.constant(Made, "test")["accuracy"], 6) == 0.8


def test_the_tables_mention_every_row(finished):
  markdown = (finished.run / "table.md").read_text()
  page = (finished.run / "index.html").read_text()
  rows = list(csv.DictReader((finished.run / "table.csv").read_text().splitlines()))
  for name in ROWS:
    assert name in markdown and name in page
    assert name in finished.said.out
  assert {r["method"] for r in rows} >= set(ROWS)
  assert "majority" in markdown
  sentence = report.sentence(report.summarise(records(finished.run)))
  assert sentence.split("(")[0] in finished.said.out


def test_the_page_loads_nothing(finished):
  page = (finished.run / "index.html").read_text()
  assert not re.findall(r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:)?//", page)
  assert not re.findall(r"@import|url\(\s*[\"']?https?:", page)
  assert page.count("data:image/png;base64,") == 2


def test_run_json_holds_configuration_command_and_versions(finished):
  info = json.loads((finished.run / "run.json").read_text())
  assert info["config"]["epochs"] == 2 and info["config"]["seeds"] == 3
  assert info["command"].startswith("mmfuse compare --data my.npz")
  assert list(info["sources"]) == ["mine.py:twin"] and info["name"] == "my"


def test_a_run_without_a_plotting_library_says_how_to_get_one(
  finished, monkeypatch, capsys, tmp_path
):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  _finish.write_report(tmp_path, report.summarise(records(finished.run)), {})
  assert "pip install 'mmfuse[report]'" in capsys.readouterr().out
  assert {p.name for p in tmp_path.iterdir()} == {"table.md", "table.csv", "index.html"}


def test_the_saved_metric_is_the_one_of_the_task():
  assert tasks.get("classification").primary == "accuracy"
  assert train.validation_scores(train.RunLog(0, None), "accuracy", ("a",)) == {
    "fused": None,
    "a": None,
  }
