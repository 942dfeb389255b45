"""A retrieval through the whole comparison: directions, chance, curves, codes, what is said of it all."""

import csv
import io
import json

import numpy as np
import pytest

from mmfuse import metrics
from mmfuse.protocol import _finish

from ._helpers import QUICK, call, quick, records

METHODS = "joint,cca,cmimh"  # the others are compared by features as cca is
SMALL = ("--set", "cmimh.bits=8")


def few(rows=40):
  """Three modalities of forty rows with several labels each; c is missing in a third of them."""
  rng = np.random.default_rng(0)
  label = (rng.random((rows, 4)) < 0.4).astype(int)
  label[3] = 0  # a row that nothing is relevant to
  made = {
    m: label @ rng.normal(size=(4, d)) + 0.3 * rng.normal(size=(rows, d))
    for m, d in (("a", 5), ("b", 3), ("c", 4))
  }
  there = np.arange(rows) % 3 != 1
  made["c"][~there] = np.nan
  split = np.asarray(["train", "train", "validation", "test"])[np.arange(rows) % 4]
  return {**made, "mask_c": there, "label": label, "split": split}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A finished run on `few`, and what was said."""
  folder = tmp_path_factory.mktemp("retrieval")
  np.savez(folder / "few.npz", **few())
  with pytest.MonkeyPatch.context() as patch:
    quick(patch)
    patch.setattr(_finish, "_can_draw", lambda: True)
    said = call(
      folder,
      *("compare", "--data", "few.npz", "--task", "retrieval", "--out", "run"),
      *("--methods", METHODS, *SMALL, *QUICK, "--seeds", "2"),
    )
  assert said.code == 0, said
  return folder, said


def test_every_row_has_all_directions_and_rows_without_a_common_space_say_so(run):
  folder, said = run
  assert "joint: n/a: it gives no features of its modalities in one space" in said.out
  found = records(folder / "run")
  assert {(r["method"], r["seed"]) for r in found} == {
    (m, s) for m in METHODS.split(",")[1:] for s in (0, 1)
  }
  for r in found:
    directions = {f"{a}->{b}" for a in "abc" for b in "abc" if a != b}
    assert r["metric"] == "map_at_50" and set(r["test"]) == {"fused", *directions}
    assert (
      set(r["validation"]) == {"fused", *directions} and set(r["precision_recall"]) == directions
    )
    assert r["test"]["fused"] == pytest.approx(np.mean([r["test"][d] for d in directions]))
    assert {"map_at_50", "map_at_all", "map_at_all/a->c"} <= set(r["scores"]["test"])
    tried = [t["validation"] for t in r["tuning"]["trials"] if t["seed"] == r["seed"]]
    assert tried == [r["validation"]["fused"]]


def test_the_table_has_chance_both_scores_and_every_number_that_changes_them(run):
  folder, _ = run
  table = (folder / "run" / "table.md").read_text()
  header = next(line for line in table.splitlines() if line.startswith("| method"))
  assert all(
    f"| {d} " in header for d in ("mean", "a->b", "c->a", "vs cca", "mAP@all", "mAP@all b->c")
  )
  chance = next(line for line in table.splitlines() if line.startswith("| random ranking |"))
  assert "n/a" not in chance.split("|")[2] and chance.count("n/a") < header.count("|") - 14
  for words in (
    "divided by the number of relevant rows among them",
    "ties by database index",
    "a label in common",
    "a->c 10 in 13, 2 queries without a relevant row",
  ):
    assert words in table, words
  (line,) = json.loads((folder / "run" / "baselines.json").read_text())
  assert line["name"] == "majority class" and 0 < line["test"] < 1
  assert set(line["scores"]["test"]) >= {"map_at_50", "map_at_all", "map_at_50/a->b"}


def test_curves_are_drawn_and_written(run):
  folder, _ = run
  rows = list(csv.DictReader(io.StringIO((folder / "run" / "precision_recall.csv").read_text())))
  assert {r["method"] for r in rows} == {*METHODS.split(",")[1:], "random ranking"}
  mine = [float(r["precision"]) for r in rows if (r["method"], r["direction"]) == ("cca", "a->b")]
  assert len(mine) == len(metrics.RECALL) and mine == sorted(mine, reverse=True)
  assert (folder / "run" / "precision_recall.png").read_bytes().startswith(b"\x89PNG")
  assert "Precision over recall" in (folder / "run" / "index.html").read_text()


def test_predict_writes_what_rows_are_compared_by(run):
  folder, _ = run
  arrays = {n: x[:6] for n, x in few().items() if n in ("a", "c", "mask_c")}
  np.savez(folder / "new.npz", **arrays)
  said = call(folder, "predict", "run", "--data", "new.npz", "--method", "cmimh")
  assert said.code == 0, said.err
  rows = list(csv.DictReader(io.StringIO(said.out)))
  assert set(rows[0]) == {"row", "code_a", "code_b", "code_c"} and len(rows) == 6
  assert all(len(r["code_a"]) == 8 and set(r["code_a"]) <= {"0", "1"} for r in rows)
  assert all(r["code_b"] == "" for r in rows)
  assert [r["code_c"] == "" for r in rows] == [not v for v in arrays["mask_c"]]
  said = call(folder, "predict", "run", "--data", "new.npz", "--method", "cca")
  rows = list(csv.DictReader(io.StringIO(said.out)))
  assert [n for n in rows[0] if n.startswith("a_")] == [f"a_{i}" for i in range(10)]
  assert all(np.isfinite(float(r["a_0"])) for r in rows)


@pytest.mark.parametrize(
  ("argv", "said"),
  [
    (("--missing",), "--missing scores subsets of modalities, and retrieval has no prediction"),
    (
      ("--select", "accuracy"),
      "no metric 'accuracy' for retrieval; available: map_at_50, map_at_all",
    ),
    (("--select", "mean/map_at_50"), "retrieval is judged as a whole; take map_at_50"),
  ],
)
def test_what_has_no_meaning_here_is_refused(run, argv, said):
  folder, _ = run
  found = call(folder, "compare", "--data", "few.npz", "--task", "retrieval", *argv)
  assert found.code == 2 and said in found.err, found


def test_labels_that_are_no_classes_are_refused_and_one_modality_is_no_retrieval(tmp_path):
  np.savez(
    tmp_path / "my.npz", a=np.random.default_rng(0).normal(size=(30, 2)), label=np.arange(30.0)
  )
  said = call(tmp_path, "compare", "--data", "my.npz", "--task", "retrieval")
  assert said.code == 2 and "have a class or a label in common" in said.err
  said = call(tmp_path, "compare", "--data", "watch_imu", "--task", "regression")
  assert said.code == 2 and "cannot be a regression" in said.err


def test_parts_called_query_and_database_are_what_is_ranked(tmp_path, monkeypatch):
  quick(monkeypatch)
  arrays = few(48)
  split = np.repeat(["train", "validation", "test", "query", "database"], [16, 8, 4, 8, 12])
  np.savez(tmp_path / "my.npz", **{**arrays, "label": np.arange(48) % 3, "split": split})
  said = call(
    tmp_path,
    *("compare", "--data", "my.npz", "--task", "retrieval", "--out", "run", "--methods", "cca"),
    *(*QUICK, "--modalities", "a,b"),
  )
  assert said.code == 0, said
  assert "a->b 8 in 12; b->a 8 in 12" in (tmp_path / "run" / "table.md").read_text()
  (record,) = records(tmp_path / "run")
  assert set(record["test"]) == {"fused", "a->b", "b->a"}
