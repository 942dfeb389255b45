"""Baselines of a comparison: on every table, sealed from test rows, whatever is absent."""

import csv
import json
import math

import numpy as np
import pytest

from mmfuse import data
from mmfuse.protocol import _baselines, _finish, _linear

from ._helpers import QUICK, arrays, call, numbers


def raised(line, error):
  raise error


def fitted(splits):
  return {x.name: x for x in _baselines.fit_lines(splits.sealed(), raised)}


def entries(tmp_path, splits):
  lines = _baselines.fit_lines(splits.sealed(), raised)
  found = _baselines.write_entries(tmp_path, {None: lines}, {None: splits})
  assert json.loads((tmp_path / "baselines.json").read_text()) == found
  return {e["name"]: e for e in found}


def test_a_linear_rule_is_found_where_it_is(tmp_path):
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(200, 3, 2)), rng.normal(size=(200, 2))
  label = (a[:, 1, 0] - a[:, 2, 1] > 0).astype(int)  # of two places in `a`; `b` knows nothing
  splits = data.from_arrays({"a": a, "b": b, "label": label})
  found = entries(tmp_path, splits)
  assert found["linear/a"]["test"] > 0.9 > 0.7 > found["linear/b"]["test"]
  assert found["linear"]["test"] > 0.9 and found["linear"]["columns"] == 8
  assert found["linear"]["rows"] == {"train": 120, "validation": 40, "test": 40}
  counts = np.bincount(splits.train.label)
  assert found["majority class"]["test"] == pytest.approx(
    np.mean(splits.test.label == counts.argmax())
  )
  assert {e["metric"] for e in found.values()} == {"accuracy"}
  assert found["linear"]["scores"]["test"]["accuracy"] == found["linear"]["test"]


def test_regression_and_many_labels(tmp_path):
  made = arrays()
  made["label"] = made["a"][:, 0] * 2.0 + 1.0
  found = entries(tmp_path, data.from_arrays(made))
  assert found["linear/a"]["test"] > 0.99 and found["linear"]["metric"] == "r2"
  made["label"] = (made["a"][:, :2] > 0).astype(int)
  found = entries(tmp_path, data.from_arrays(made))
  assert found["linear/a"]["test"] > 0.8 and found["linear/a"]["metric"] == "macro_f1"


def test_nothing_in_the_test_rows_reaches_a_fit():
  splits = data.from_arrays(arrays())
  plain = fitted(splits)
  made = arrays()
  test = made["split"] == "test"
  for m in "ab":
    made[m][test] = np.random.default_rng(5).normal(size=(test.sum(), 4)) * 1e3
  made["label"][test] = 1 - made["label"][test]
  garbage = fitted(data.from_arrays(made))
  bad = splits.test.replace(
    inputs={m: np.full_like(x, np.nan) for m, x in splits.test.inputs.items()}
  )
  nan = {x.name: x for x in _baselines.fit_lines(splits.with_parts(test=bad), raised)}
  for name, line in plain.items():
    for other in (garbage[name], nan[name]):
      assert line.fit.C == other.fit.C and line.validation == other.validation
      np.testing.assert_array_equal(line.fit.weights, other.fit.weights)
      np.testing.assert_array_equal(line.fit.bias, other.fit.bias)


def test_a_modality_that_a_part_lacks_is_a_reason(tmp_path):
  for part, says in (
    ("train", "b is in no training row"),
    ("validation", "b is in no validation row"),
    ("test", "b is in no test row"),
  ):
    made = arrays()
    made["mask_b"] = made["split"] != part
    found = entries(tmp_path, data.from_arrays(made))
    assert found["linear/b"]["why"] == says and found["linear/b"]["test"] is None
    assert math.isfinite(found["linear"]["test"]) and found["linear"]["why"] is None
    assert found["linear"]["columns"] == (4 if part == "train" else 8)


def test_a_modality_alone_is_fitted_and_scored_in_the_rows_that_have_it(tmp_path):
  made = arrays()
  made["mask_b"] = np.arange(80) % 4 > 0
  splits = data.from_arrays(made)
  found = entries(tmp_path, splits)["linear/b"]
  assert found["rows"] == {
    p: int(getattr(splits, p).mask["b"].sum()) for p in ("train", "validation", "test")
  }
  part = {p: made["mask_b"] & (made["split"] == p) for p in ("train", "validation", "test")}
  only = data.from_arrays(
    {k: v for k, v in made.items() if k in ("b", "label", "split", "mask_b")}, drop_empty=True
  )
  assert entries(tmp_path, only)["linear/b"]["test"] == found["test"]
  assert found["rows"]["test"] == part["test"].sum()


def test_rows_without_a_label_count_nowhere(tmp_path):
  splits = data.from_arrays(arrays())
  known = lambda s: np.arange(len(s.label)) % 4 > 0
  hidden = splits.with_parts(
    **{
      p: (s := getattr(splits, p)).replace(label=np.where(known(s), s.label, 0), labelled=known(s))
      for p in ("train", "validation", "test")
    },
  )

  cut = lambda s: s.rows(known(s))
  few = splits.with_parts(**{p: cut(getattr(splits, p)) for p in ("train", "validation", "test")})
  a, b = entries(tmp_path, hidden), entries(tmp_path, few)
  assert a == b and a["linear"]["rows"]["train"] == 36
  none = hidden.with_parts(validation=hidden.validation.replace(labelled=np.zeros(16, bool)))
  assert entries(tmp_path, none)["linear"]["why"] == "no validation row has a label"


def test_an_error_is_the_reason_of_its_line_alone(monkeypatch):
  fits = _linear.fits

  def broken(split, modalities, *rest):
    if modalities == ("b",):
      raise MemoryError("no room")
    return fits(split, modalities, *rest)

  monkeypatch.setattr(_linear, "fits", broken)
  splits = data.from_arrays(arrays()).sealed()
  lines = _baselines.fit_lines(splits, lambda line, error: f"failed: {line.name}: {error}")
  assert [x.why for x in lines] == [None, None, "failed: linear/b: no room"]


def test_what_was_cut_or_did_not_converge_is_noted(tmp_path, monkeypatch):
  monkeypatch.setattr(_linear, "ITERATIONS", 1)
  monkeypatch.setattr(_linear, "CHOICE_ROWS", 20)
  monkeypatch.setattr(_linear, "MOST_CELLS", 8 * 40)
  notes = _baselines.notes([*entries(tmp_path, data.from_arrays(arrays())).values()])
  assert "linear is fitted to 40 of 48 training rows, which is what fits" in notes
  assert "linear: C was chosen with 20 of 48 training rows, for time" in notes
  assert any(n.startswith("linear did not converge in 1 iterations (C = ") for n in notes)
  assert len(notes) == 7  # of four columns all 48 rows fit


def test_every_table_has_them_and_resuming_keeps_them(finished, monkeypatch):
  found = json.loads((finished.run / "baselines.json").read_text())
  assert [(e["name"], e["fold"]) for e in found] == [
    (n, None) for n in ("linear", "linear/a", "linear/b", "majority class")
  ]
  assert {r[0] for r in numbers(finished.run)}.isdisjoint({e["name"] for e in found})
  rows = {
    r["method"]: r for r in csv.DictReader((finished.run / "table.csv").read_text().splitlines())
  }
  rows["majority class"] = rows["majority class of training"]
  for e in found:
    assert float(rows[e["name"]]["test"]) == e["test"]
  joint = rows["joint"]
  assert float(joint["vs_linear"]) == pytest.approx(float(joint["test"]) - found[0]["test"])
  assert "baselines, validation accuracy: linear 0." in finished.said.out
  assert "linear/a" in (finished.run / "index.html").read_text()


def test_they_are_fitted_before_and_scored_after_the_rows_and_kept(place, monkeypatch):
  monkeypatch.setattr(_finish, "_can_draw", lambda: False)
  order, fit, write = [], _baselines.fit_lines, _baselines.write_entries

  def fit_lines(splits, failed):
    order.append(("fit", splits.test is None))
    return fit(splits, failed)

  def write_entries(folder, lines, splits):
    order.append(("score", sorted(p.parent.name for p in folder.glob("runs/*/choice.json"))))
    return write(folder, lines, splits)

  monkeypatch.setattr(_baselines, "fit_lines", fit_lines)
  monkeypatch.setattr(_baselines, "write_entries", write_entries)
  options = ("--data", "my.npz", "--methods", "joint", "--out", "run", *QUICK)
  assert call(place, "compare", *options).code == 0
  assert order == [("fit", True), ("score", ["joint"])]
  before = (place / "run" / "baselines.json").read_bytes()
  table = (place / "run" / "table.md").read_text()
  assert call(place, "compare", *options, "--resume").code == 0
  assert len(order) == 2  # nothing was fitted or scored again
  (place / "run" / "baselines.json").unlink()
  assert call(place, "compare", *options, "--resume").code == 0
  assert (place / "run" / "baselines.json").read_bytes() == before
  assert (place / "run" / "table.md").read_text() == table


def test_a_method_cannot_take_the_name_of_a_line(place):
  (place / "mine.py").write_text(
    "def linear(model, learning_rate=.03, *, tx=None):\n  return None\n"
  )
  said = call(place, "compare", "--data", "my.npz", "--methods", "mine.py:linear", *QUICK)
  assert said.code == 2 and "a method cannot be called 'linear'" in said.err
