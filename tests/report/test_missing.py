"""Means over subsets, their differences, and how they are shown."""

import csv
import io

import pytest

from mmfuse import report
from mmfuse.report import _missing

from ._records import record

SUBSETS = (("audio",), ("image",), ("audio", "image"))
INFO = {"missing": {"kind": "even", "select": "mean/accuracy"}}


def of(method, seed, values, curve=(0.4,), **more):
  """A record with a score a subset, None where no row has it."""
  subsets = [{"modalities": list(s), "score": v, "rows": 9} for s, v in zip(SUBSETS, values)]
  rates = [{"rate": 0.5 + 0.1 * i, "score": v} for i, v in enumerate(curve)]
  return record(method, seed, values[-1] or 0.5, subsets=subsets, missing_rates=rates, **more)


RECORDS = [
  *(of("joint", s, (0.4, 0.2 + 0.01 * s, 0.6)) for s in range(3)),
  *(of("dropout", s, (0.5, 0.4 + 0.02 * s, 0.6), (0.6,)) for s in range(3)),
]


def summary(records=RECORDS, **options):
  return report.summarise(records, info=INFO, **options)


def test_mean_and_worst_by_hand_and_the_paired_difference():
  joint, dropout = (r.missing for r in summary().rows)
  assert joint.over["complete"].mean == pytest.approx(0.6)
  assert joint.over["mean"].mean == pytest.approx((0.4 + 0.21 + 0.6) / 3)
  assert joint.over["worst"].mean == pytest.approx(0.21)
  assert joint.differences == {"joint": None}
  d = dropout.differences["joint"]
  assert d.mean == pytest.approx((0.1 + 0.21) / 3) and d.n == 3 and d.p_holm is not None
  assert d.half == pytest.approx(4.303 * 0.01 / 3 / 3**0.5, rel=1e-3)
  assert dropout.curve[0.5].mean == pytest.approx(0.6)


def test_a_subset_that_no_row_has_counts_for_nobody_and_is_named():
  records = [
    of("joint", 0, (0.4, None, 0.6)),
    of("dropout", 0, (0.5, None, 0.6)),
  ]
  found = summary(records)
  assert found.rows[0].missing.over["mean"].mean == pytest.approx(0.5)
  assert found.rows[0].missing.subsets["image",] is None
  text = report.markdown(found)
  assert "over the 2 subsets that have a score" in text
  assert "n/a, since no row has all of it: image." in text


def test_a_run_without_a_score_that_others_have_has_no_mean():
  """Else a diverged run would be averaged over the subsets it survived."""
  records = [*RECORDS, of("broken", 0, (0.9, None, None))]
  assert summary(records).rows[2].missing.over["mean"] is None


def test_folds_count_their_own_subsets():
  records = [
    of("joint", 0, (0.4, None, 0.6), fold=0),
    of("joint", 0, (0.2, 0.4, 0.6), fold=1),
  ]
  assert summary(records).rows[0].missing.over["mean"].mean == pytest.approx((0.5 + 0.4) / 2)


def test_columns_caption_sentence_and_curve():
  text = report.markdown(summary())
  for word in ("complete", "mean", "worst", "mean vs joint", "on audio", "on audio+image"):
    assert f"| {word} |" in text
  assert "were chosen by the validation mean over the subsets of modalities." in text
  assert "On the mean over subsets, less joint (points): dropout +10.3 ± 0.8*." in text
  assert "| missing rate | 0 | 0.5 |\n|---|---:|---:|\n| joint | 60.0 | 40.0 |" in text
  line = list(csv.DictReader(io.StringIO(report.csv(summary()))))[1]
  assert float(line["mean_vs_joint"]) == pytest.approx(0.31 / 3)
  assert float(line["on image"]) == pytest.approx(0.42) and float(line["missing_0.5"]) == 0.6
  worst = report.summarise(RECORDS, info={"missing": {"kind": "image", "select": "worst/accuracy"}})
  assert "chosen by the worst validation score over" in report.caption(worst)
  assert "loses image, by one stored table" in report.markdown(worst)


def test_without_the_callers_wish_nothing_is_shown():
  plain = report.summarise(RECORDS)
  bare = report.summarise([{**r, "subsets": [], "missing_rates": []} for r in RECORDS])
  assert report.markdown(plain) == report.markdown(bare)
  assert report.csv(plain) == report.csv(bare)
  assert all(row.missing is None for row in plain.rows)


def test_the_best_row_is_the_best_by_what_was_chosen_by():
  chosen = lambda m, fused, mean: of(
    m,
    0,
    (0.5, 0.5, 0.5),
    validation={"fused": fused},
    scores={"validation": {"mean/accuracy": mean}},
    select="mean/accuracy",
  )
  records = [chosen("joint", 0.9, 0.4), chosen("dropout", 0.8, 0.6)]
  assert report.best_fused(records) == "dropout"


def test_the_curve_is_drawn_and_needs_rates(tmp_path):
  path = report.missing_curve(summary(), tmp_path / "curve.png")
  assert path.read_bytes().startswith(b"\x89PNG")
  assert _missing.curve_table("accuracy", report.summarise(RECORDS).rows) == []
  with pytest.raises(ValueError, match="no row has scores over a missing rate"):
    report.missing_curve(report.summarise(RECORDS), tmp_path / "no.png")
