"""A task that is judged by a score of the user's own: chosen, recorded and shown by its passport."""

import json

import pytest

from mmfuse import data, methods, metrics, protocol, report, tasks, train
from mmfuse.names import CLASSIFICATION
from mmfuse.protocol import Compare, _baselines

from ._helpers import quick, records

ERRORS = metrics.Score("errors", larger_is_better=False, share=True, words="errors made")


def _counting_errors(num_outputs, unit):
  """1 - accuracy, and what classification is judged by else."""
  ours = metrics.classification(num_outputs)

  def compute(sums):
    found = ours.compute(sums)
    return {"errors": 1.0 - found["accuracy"], **found}

  return metrics.per_head(ours._replace(compute=compute, scores=(ERRORS, *ours.scores)))


@pytest.fixture
def judged_by_errors(monkeypatch):
  task = tasks.get(CLASSIFICATION)._replace(metric=_counting_errors, primary="errors")
  monkeypatch.setitem(tasks.TASKS, CLASSIFICATION, task)
  tasks._metric.cache_clear()
  yield
  tasks._metric.cache_clear()


@pytest.mark.slow
def test_errors_choose_what_accuracy_chooses(
  finished, place, monkeypatch, capsys, judged_by_errors
):
  monkeypatch.chdir(place)
  quick(monkeypatch)
  table = data.load("my.npz")
  names = ("joint", "uniform", "late_average", "unimodal")
  cfg = Compare(methods=names, epochs=2, batch_size=16, seeds=3, out="run")
  summary = protocol.run(cfg, table=table)
  accuracy = {(r["method"], r["seed"]): r for r in records(finished.run)}
  for r in records(place / "run"):
    other = accuracy[r["method"], r["seed"]]
    assert r["metric"] == "errors" and r["learning_rate"] == other["learning_rate"]
    assert r["selected_epoch"] == other["selected_epoch"]
    assert r["test"]["fused"] == pytest.approx(1.0 - other["test"]["fused"])
  info = json.loads((place / "run" / "run.json").read_text())
  assert info["scores"] == {"errors": ERRORS._asdict()}
  theirs = (finished.run / "table.md").read_text().splitlines()
  ours = (place / "run" / "table.md").read_text()
  assert ours.startswith("my (") and "Test errors made in percent" in ours
  marks = [x.split(" | ")[0] for x in theirs if "(best " in x and x.startswith("|")]
  assert len(marks) == 2 and all(f"{mark} |" in ours for mark in marks)
  # What is predicted with is the row that the table marks, the best by the same rule.
  (marked,) = [row.method for row in summary.rows if row.best_fused]
  capsys.readouterr()
  protocol.predict("run", "my.npz")
  assert f"note: {marked}, seed 0: the best fused row by validation, errors" in (
    capsys.readouterr().err
  )


def test_the_linear_baseline_is_chosen_by_the_same_direction(finished, place, judged_by_errors):
  def never(line, error):
    raise error

  splits = data.load(str(place / "my.npz")).splits().sealed()
  fits = {line.name: line.fit.C for line in _baselines.fit_lines(splits, never)}
  kept = {e["name"]: e.get("C") for e in json.loads((finished.run / "baselines.json").read_text())}
  assert fits == {name: kept[name] for name in fits}


def test_fit_leaves_the_passport_in_its_records(place, judged_by_errors):
  splits = data.load(str(place / "my.npz")).splits().sealed()
  method = methods.METHODS["joint"](protocol.make_model(splits))
  result = train.fit(method, splits, epochs=1, batch_size=16)
  (record,) = result.records("joint")
  assert record["metric"] == "errors" and record["passport"] == ERRORS._asdict()
  assert "Validation errors made in percent" in report.markdown({"joint": result})
