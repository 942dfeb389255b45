"""`results.jsonl`: whole or not at all, one line per run, never NaN."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import report

from ._records import record


def test_round_trip_keeps_numbers_order_and_names(tmp_path):
  records = [record("b", 1, 0.1 + 0.2, fold=0), record("ä|\u2028b", 0, 1 / 3, fold=1)]
  path = report.write_jsonl(records, tmp_path / "results.jsonl")
  assert report.read_jsonl(path) == records
  assert path.read_bytes().count(b"\n") == 2
  assert [p.name for p in tmp_path.iterdir()] == ["results.jsonl"]


def test_arrays_become_numbers_and_nan_becomes_null(tmp_path):
  odd = record("a", np.int64(3), jnp.float32(0.5), trials=(np.float32("nan"), np.inf, np.arange(2)))
  path = report.write_jsonl([odd], tmp_path / "r.jsonl")
  assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
  (back,) = report.read_jsonl(path)
  assert back["seed"] == 3 and back["test"]["fused"] == 0.5
  assert back["trials"] == [None, None, [0, 1]]


def test_duplicates_are_refused_and_the_old_file_stays(tmp_path):
  path = report.write_jsonl([record("a", 0), record("a", 1)], tmp_path / "r.jsonl")
  before = path.read_bytes()
  with pytest.raises(ValueError, match="two records for method 'a', seed 0;"):
    report.write_jsonl([record("a", 0), record("a", 0)], path)
  with pytest.raises(TypeError, match="got a set"):
    report.write_jsonl([record("a", 0, extra={1})], path)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]
  report.write_jsonl([record("a", 0, fold=0), record("a", 0, fold=1)], path)
  with pytest.raises(ValueError, match="seed 0, fold 1;"):
    report.write_jsonl([record("a", 0, fold=1), record("a", 0, fold=1)], path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
  path = report.write_jsonl([record("a")], tmp_path / "r.jsonl")

  def full(*_):
    raise OSError("no space left")

  monkeypatch.setattr("os.replace", full)
  with pytest.raises(OSError, match="no space left"):
    report.write_jsonl([record("b")], path)
  assert [r["method"] for r in report.read_jsonl(path)] == ["a"]
  assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


def test_empty(tmp_path):
  assert report.read_jsonl(report.write_jsonl([], tmp_path / "r.jsonl")) == []


@pytest.mark.parametrize(
  ("line", "sentence"),
  [
    ('{"method": "a", "se', "line 2 of .* is not a JSON object"),
    ("[1, 2]", "line 2 of .* is not a JSON object"),
    ('{"method": "b", "seed": NaN}', "NaN is not JSON; a missing number is null"),
    (json.dumps(record("a")), "two records for method 'a', seed 0"),
    ('{"seed": 0}', "a record needs 'method', got only: seed"),
  ],
)
def test_broken_lines_are_named(tmp_path, line, sentence):
  path = tmp_path / "r.jsonl"
  path.write_text(json.dumps(record("a")) + "\n" + line + "\n")
  with pytest.raises(ValueError, match=sentence):
    report.read_jsonl(path)


def test_no_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"expected a results\.jsonl file"):
    report.read_jsonl(tmp_path / "none.jsonl")
