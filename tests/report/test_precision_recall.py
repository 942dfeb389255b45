"""Precision over recall: what the CSV holds, and a picture of many methods and directions."""

import csv
import io

import pytest

from mmfuse import report

CURVES = report.RecallCurves(
  (0.0, 0.5, 1.0),
  {f"method_{i}": {"a->b": [0.9, 0.5, 0.1], "b->a": [0.8, 0.4, 0.2]} for i in range(9)},
  {"a->b": 0.1, "b->a": 0.2},
)


def test_csv_has_every_point():
  rows = list(csv.DictReader(io.StringIO(report.precision_recall_csv(CURVES))))
  assert len(rows) == (9 * 2 + 2) * 3
  assert rows[1] == {
    "method": "method_0",
    "direction": "a->b",
    "recall": "0.5",
    "precision": "0.5",
  }
  assert rows[-1] == {
    "method": "random ranking",
    "direction": "b->a",
    "recall": "1",
    "precision": "0.2",
  }


def test_picture(tmp_path):
  path = report.precision_recall(CURVES, tmp_path / "x.png")
  assert path.read_bytes().startswith(b"\x89PNG")
  with pytest.raises(ValueError, match="no precision-recall curves"):
    report.precision_recall(CURVES._replace(rows={}), path)
