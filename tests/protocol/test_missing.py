"""`compare --missing`: what is chosen by, recorded, stored and refused."""

import csv
import hashlib
import json

import numpy as np
import pytest

from mmfuse import data, masks
from mmfuse.protocol import _missing
from mmfuse.protocol._config import Compare

from ._helpers import QUICK, arrays, call, records

OPTIONS = ("--missing", "--missing-rate", "1", ".5", "--missing-train", ".4")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Two rows of one seed, at one rate."""
  folder = tmp_path_factory.mktemp("missing")
  np.savez(folder / "my.npz", **arrays())
  methods = ("--data", "my.npz", "--methods", "uniform,dropout", "--out", "run")
  said = call(folder, "compare", *methods, *OPTIONS, *QUICK)
  assert said.code == 0, said
  return folder / "run", said


def test_records_hold_every_subset_and_the_curve(run):
  found = records(run[0])
  assert [r["method"] for r in found] == ["uniform", "dropout"]
  for r in found:
    assert [(s["modalities"], s["rows"]) for s in r["subsets"]] == [
      (["a"], 16),
      (["b"], 16),
      (["a", "b"], 16),
    ]
    assert r["subsets"][-1]["score"] == r["test"]["fused"]
    assert [e["rate"] for e in r["missing_rates"]] == [0.5, 1.0]
    assert all(0 <= e["score"] <= 1 for e in (*r["subsets"], *r["missing_rates"]))
    assert r["select"] == "mean/accuracy"
    (trial,) = r["tuning"]["trials"]
    assert trial["validation"] == r["scores"]["validation"]["mean/accuracy"]
    assert set(r["shapley"]) == {"a", "b"}


def test_where_every_row_loses_a_modality_the_score_is_that_of_the_halves(run):
  """At rate 1, 8 of 16 rows have b alone and 8 a alone, by the stored table."""
  with np.load(run[0] / "missing_tables.npz") as stored:
    code = stored["test/1"]
    assert sorted(stored.files) == ["modalities", "test/0.5", "test/1", "train/0.4"]
    assert np.bincount(code).tolist() == [0, 8, 8]
    assert np.bincount(stored["train/0.4"]).tolist() == [29, 9, 10]  # int(48 * .4) = 19 of 48


def test_the_tables_are_hashed_in_run_json(run):
  info = json.loads((run[0] / "run.json").read_text())
  with np.load(run[0] / "missing_tables.npz") as stored:
    for name, said in info["missing"]["tables"].items():
      assert hashlib.sha256(stored[name].astype("<i2").tobytes()).hexdigest() == said
  assert info["missing"]["kind"] == "even" and info["missing"]["modalities"] == ["a", "b"]
  assert info["config"]["select"] == "mean/accuracy"


def test_the_report_has_columns_caption_and_figure(run):
  line = next(csv.DictReader((run[0] / "table.csv").read_text().splitlines()))
  assert {"complete", "mean", "worst", "on a", "on b", "on a+b", "missing_0.5"} <= set(line)
  text = (run[0] / "table.md").read_text()
  assert "were chosen by the validation mean over the subsets" in text
  assert "--missing-train: 19 of 48 training rows lose a modality (even)" in text
  assert (run[0] / "missing.png").is_file()
  assert "Score over the missing rate" in (run[0] / "index.html").read_text()


def test_a_finished_run_is_continued_and_other_tables_are_refused(run):
  methods = ("--data", "my.npz", "--methods", "dropout", "--out", "run", "--resume")
  assert call(run[0].parent, "compare", *methods, *OPTIONS, *QUICK).code == 0
  other = call(run[0].parent, "compare", *methods, *OPTIONS[:-1], ".5", *QUICK)
  assert other.code == 2 and "missing" in other.err


@pytest.mark.parametrize(
  "options, message",
  [
    (("--missing-rate", ".5"), "--missing-rate says how modalities go missing: it needs --missing"),
    (("--missing", "--missing-rate", "1.5"), "--missing-rate must lie above 0 and be at most 1"),
    (("--missing", "--missing-train", "0"), "--missing-train must lie above 0 and be at most 1"),
    (
      ("--missing", "--missing-kind", "c"),
      "--missing-kind has no modality 'c'; available: even, a",
    ),
    (("--missing", "--select", "accuracy@a"), "selects over subsets of modalities, not by"),
    (("--missing", "--modalities", "a"), "these data have one modality"),
    (("--select", "mean/foo"), "--select has no metric 'foo' for classification"),
    (("--select", "accuracy@c"), "--select has no modality 'c'"),
  ],
)
def test_bad_input_is_one_sentence_before_anything_is_trained(place, options, message):
  said = call(place, "compare", "--data", "my.npz", "--methods", "joint", *options, *QUICK)
  assert said.code == 2 and message in said.err and said.err.count("\n") == 1
  assert not (place / "results").exists()


def split_of(**mask):
  made = {**arrays(), **{f"mask_{m}": v for m, v in mask.items()}}
  return data.from_arrays(made)


def test_a_subset_that_no_row_has_is_not_asked_and_shapley_is_not_defined():
  never = np.arange(80) % 4 < 2
  test = split_of(a=never, b=~never).test
  asked = _missing.Questions(test, [("a",), ("b",), ("a", "b")], ("a", "b"), {})
  answers = {what: {"fused": {"accuracy": 0.5}} for what in asked.views}
  assert [s["score"] for s in asked.subsets(answers, "accuracy")] == [0.5, 0.5, None]
  assert [s["rows"] for s in asked.subsets({}, "accuracy")] == [8, 8, 16]
  assert not asked.every(("a", "b")) and asked.every(("a",))
  diverged = asked.subsets({}, "accuracy")
  assert all(s["score"] is None for s in diverged)


def test_tables_are_the_same_each_time_and_others_for_each_fold_and_rate():
  splits = split_of()
  cfg = _missing.configured(Compare(missing=True, missing_kind="b"), ("a", "b"), "classification")
  assert cfg.select == "mean/accuracy" and len(cfg.missing_rate) == 9
  one, again = (_missing.of_test(cfg, splits, None) for _ in range(2))
  assert all((_missing.codes(one[r]) == _missing.codes(again[r])).all() for r in cfg.missing_rate)
  assert all(t["a"].all() for t in one.values())
  other = _missing.of_test(cfg, splits, 1)
  assert any((_missing.codes(one[r]) != _missing.codes(other[r])).any() for r in cfg.missing_rate)


def test_training_rows_lose_what_the_table_says_before_they_are_standardised():
  table = data.table_from_arrays(arrays())
  cfg = Compare(missing=True, missing_train=0.5, missing_kind="b")
  less, whole = _missing.split(cfg, table, None), table.splits()
  lost = _missing.tables_of(cfg, {None: whole})["train/0.5"]
  np.testing.assert_array_equal(less.train.mask["b"], masks.without(whole.train.mask, lost)["b"])
  assert less.train.mask["a"].all() and (~less.train.mask["b"]).sum() == 24
  assert not less.train.inputs["b"][~less.train.mask["b"]].any()
  seen = less.train.inputs["b"][less.train.mask["b"]]
  np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)  # by the rows that are left
  assert less.test.mask["b"].all() and less.validation.mask["b"].all()
