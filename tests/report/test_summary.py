"""From records to rows: units, pairing, Holm, marks, refusals."""

import numpy as np
import pytest
from scipy import stats

from mmfuse import report

from ._records import NOISY, record, rows


def by_name(summary):
  return {r.method: r for r in summary.rows}


def test_seeds_are_the_unit_without_folds():
  summary = report.summarise(rows(**NOISY))
  assert (summary.unit, summary.units, summary.seeds) == ("seed", 5, 5)
  table = by_name(summary)
  assert table["better"].test == report.estimate(NOISY["better"])
  assert table["better"].unimodal["audio"] == table["better"].test
  assert table["better"].validation == table["better"].test
  found = table["better"].differences["joint"]
  oracle = stats.ttest_rel(NOISY["better"], NOISY["joint"])
  assert found.p == pytest.approx(oracle.pvalue)
  assert table["joint"].differences["joint"] is None
  assert table["uniform"].differences["joint"].mean == pytest.approx(0.0, abs=1e-12)


def test_holm_goes_over_the_rows_of_each_column():
  summary = report.summarise(rows(**NOISY))
  for base in ("joint", "uniform"):
    column = {r.method: r.differences[base] for r in summary.rows if r.method != base}
    expected = report.holm({m: d.p for m, d in column.items()})
    assert {m: d.p_holm for m, d in column.items()} == expected
    assert {m for m, d in column.items() if d.significant} == {"better", "worse"}


def test_folds_are_the_unit_and_seeds_are_averaged_within():
  scores = {
    ("joint", 0): (0.4, 0.6),
    ("joint", 1): (0.7, 0.7),
    ("joint", 2): (0.5, 0.6),
    ("x", 0): (0.6, 0.8),
    ("x", 1): (0.7, 0.9),
    ("x", 2): (0.5, 0.9),
  }
  records = [
    record(m, s, v, fold=f) for (m, f), values in scores.items() for s, v in enumerate(values)
  ]
  summary = report.summarise(records)
  assert (summary.unit, summary.units, summary.seeds) == ("fold", 3, 2)
  row = by_name(summary)["x"]
  assert (row.test.n, row.runs) == (3, 6)
  assert row.test == report.estimate([0.7, 0.8, 0.7])
  expected = report.paired([0.7, 0.8, 0.7], [0.5, 0.7, 0.55])
  assert row.differences["joint"].mean == pytest.approx((0.2 + 0.1 + 0.15) / 3)
  assert row.differences["joint"].p == pytest.approx(expected.p)


def test_pairs_are_the_runs_both_have():
  records = [record("joint", s, v) for s, v in enumerate((0.1, 0.2, 0.9))]
  records += [record("x", s, v) for s, v in ((0, 0.2), (1, 0.4))]
  summary = report.summarise(records, baselines=("joint", "x"))
  found = by_name(summary)["x"].differences["joint"]
  assert found.n == 2
  assert found.mean == pytest.approx(0.15)
  assert by_name(summary)["joint"].differences["x"].mean == pytest.approx(-0.15)
  assert "x: 2 of 3 runs are done." in summary.notes


def test_incomplete_folds_pair_by_fold_and_seed():
  records = [record("joint", s, v, fold=f) for f, s, v in ((0, 0, 0.1), (0, 1, 0.9), (1, 0, 0.3))]
  records += [record("x", 0, v, fold=f) for f, v in ((0, 0.2), (1, 0.5))]
  found = by_name(report.summarise(records))["x"].differences["joint"]
  assert found.mean == pytest.approx((0.1 + 0.2) / 2)  # the 0.9 of seed 1 has no partner


def test_a_copy_of_joint_differs_by_exactly_nothing():
  summary = report.summarise(rows(joint=NOISY["joint"], copy=NOISY["joint"]))
  found = by_name(summary)["copy"].differences["joint"]
  assert (found.mean, found.half, found.p, found.significant) == (0.0, 0.0, 1.0, False)


def test_the_best_single_modality_is_chosen_by_validation():
  records = []
  for m, validation, tested in (("audio", 0.6, 0.9), ("image", 0.7, 0.5)):
    head = {"fused": tested, m: tested, ({"audio", "image"} - {m}).pop(): None}
    records.append(record(f"unimodal/{m}", 0, validation, test=head))
  records.append(record("joint", 0, 0.99))
  table = by_name(report.summarise(records))
  assert [m for m, r in table.items() if r.best] == ["unimodal/image"]
  assert table["unimodal/audio"].unimodal["image"] is None
  assert table["unimodal/audio"].unimodal["audio"].mean == 0.9


def test_the_best_fused_row_is_chosen_by_validation_and_is_no_single_modality():
  tested = {"fused": 0.9}
  records = [record("unimodal/audio", s, 0.8) for s in (0, 1)]
  records += [record("late_average", s, 0.5, test=tested) for s in (0, 1)]
  records += [record("x", s, v) for s, v in enumerate((0.7, 0.6))]
  table = by_name(report.summarise(records))
  assert [m for m, r in table.items() if r.best_fused] == ["x"]
  assert [m for m, r in table.items() if r.best] == ["unimodal/audio"]
  assert report.best_fused(records) == "x"


def test_ties_go_to_the_lower_validation_loss_then_to_the_earlier_row():
  def runs(method, scores, loss):
    further = {"validation": {} if loss is None else {"nll": loss}}
    return [record(method, s, v, scores=further) for s, v in enumerate(scores)]

  a, b = runs("a", (0.1, 0.2, 0.3), 0.5), runs("b", (0.3, 0.2, 0.1), 0.4)  # the same mean
  assert report.best_fused([*a, *b]) == "b"
  assert report.best_fused([*a, *runs("b", (0.3, 0.2, 0.1), 0.5)]) == "a"
  assert report.best_fused([*a, *runs("b", (0.3, 0.2, 0.1), None)]) == "a"
  assert report.best_fused([*runs("a", (0.2,), None), *runs("b", (0.2,), None)]) == "a"
  assert report.best_fused([*a, *runs("b", (0.3, 0.2, 0.11), 9.0)]) == "b"


def test_a_row_with_a_run_that_has_no_score_is_not_the_best():
  lost = record("x", 1, validation={"fused": None})
  assert report.best_fused([record("x", 0, 0.9), lost, record("y", 0, 0.1)]) == "y"
  assert report.best_fused([lost, record("unimodal/a", 0, 0.9)]) is None


def test_one_seed_has_numbers_but_no_intervals():
  row = by_name(report.summarise(rows(joint=[0.5], x=[0.6])))["x"]
  assert row.test == report.Estimate(0.6, None, 1)
  found = row.differences["joint"]
  assert (found.half, found.p, found.p_holm, found.significant) == (None, None, None, False)


def test_settings_are_gathered_over_runs():
  tuned = {"hyper": {"lam": 2.0}, "edge": True, "spread": 0.3}
  records = [
    record("x", 0, learning_rate=0.1, parameters=10, relative_step_time=1.0),
    record("x", 1, learning_rate=0.01, parameters=10, relative_step_time=2.0, tuning=tuned),
  ]
  (row,) = report.summarise(records).rows
  assert row.learning_rates == (0.01, 0.1)
  assert row.hyper == ({"lam": 2.0},)
  assert row.edge
  assert (row.spread, row.relative_step_time, row.parameters) == (pytest.approx(0.2), 1.5, 10)
  assert row.contribution == pytest.approx({"audio": 0.1, "image": 0.2})
  assert row.scores["macro_f1"].mean == pytest.approx(0.4)


def test_bare_records_are_enough():
  summary = report.summarise([{"method": "x", "seed": 0}])
  (row,) = summary.rows
  assert row.test is None and row.learning_rates == () and row.parameters is None
  assert summary.notes[-1] == "x: no run gave a finite test score."


def test_runs_without_a_score_are_counted_not_hidden():
  lost = {"fused": None, "audio": float("nan"), "image": 0.5}
  records = [*rows(x=[0.5, 0.6]), record("x", 2, test=lost)]
  summary = report.summarise(records)
  (row,) = summary.rows
  assert row.test.n == 2 and row.unimodal["audio"].n == 2 and row.unimodal["image"].n == 3
  assert "x: 1 of 3 runs gave no finite score." in summary.notes


def test_runs_and_trials_that_diverged_are_said():
  def trial(rate, step=None, **hyper):
    return {"learning_rate": rate, "hyper": hyper, "seed": 0, "diverged_at": step}

  def notes(trials, steps=(None, None, None), **more):
    tuning = {"hyper": {}, "trials": trials}
    return report.summarise(
      [record("mimo", i, diverged_at=s, tuning=tuning, **more) for i, s in enumerate(steps)]
    ).notes

  assert not [n for n in notes([trial(0.03), trial(0.1)]) if "diverged" in n]
  said = notes([], (None, 70, 40))
  assert "mimo: 2 of 3 runs diverged, first at step 40." in said
  assert "mimo: 1 of 1 run diverged, at step 7." in notes([], (7,))
  assert "mimo: a trial at rate 0.3 diverged (1 of 2 runs)." in notes([trial(0.3, 5), trial(0.3)])
  said = notes([trial(0.1, 0), trial(0.3, 5, lam=2), trial(0.3, 9, lam=2)])
  assert "mimo: 2 trials diverged: rate 0.1 (1 of 1 run), rate 0.3, lam 2 (2 of 2 runs)." in said
  # The chosen rate's trials are final runs, which are counted as such.
  assert not [n for n in notes([trial(0.03, 5)]) if "diverged" in n]


def test_trials_of_folds_are_counted_once_a_fold():
  tuning = {"hyper": {}, "trials": [{"learning_rate": 0.3, "seed": 0, "diverged_at": 1}]}
  records = [record("x", s, fold=f, tuning=tuning) for f in (0, 1) for s in (0, 1)]
  assert "x: a trial at rate 0.3 diverged (2 of 2 runs)." in report.summarise(records).notes


def test_validation_is_shown_where_no_test_was_opened():
  summary = report.summarise([record("x", 0, 0.6, test={})])
  assert summary.split == "validation"
  assert summary.rows[0].test.mean == 0.6
  assert "No test scores were opened" in summary.notes[0]


def test_missing_baselines_and_unavailable_rows_are_said():
  summary = report.summarise(rows(x=[0.5, 0.6]), unavailable={"uniform": "needs two modalities"})
  assert summary.baselines == ()
  assert summary.unavailable == {"uniform": "needs two modalities"}
  assert "joint was not run: no differences to it." in summary.notes
  assert "uniform was not run (needs two modalities): no differences to it." in summary.notes


def test_a_row_that_stopped_half_way_keeps_its_numbers_and_its_reason():
  summary = report.summarise(rows(x=[0.5]), unavailable={"x": "ran out of memory"}, baselines=())
  assert summary.unavailable == {}
  assert "x: not all runs are there: ran out of memory" in summary.notes


def test_changed_versions_are_said():
  records = [*rows(x=[0.5]), record("y", versions={"jax": "0.11.2"})]
  assert any("different versions" in n for n in report.summarise(records).notes)


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    ({"data_fingerprint": "d2"}, r"different data \(data_fingerprint\): d1 \(a\), d2 \(b\)"),
    ({"data_fingerprint": None}, r"d1 \(a\), None \(b\)"),
    ({"metric": "r2"}, r"different metrics: accuracy \(a\), r2 \(b\)"),
    ({"fold": 0}, "with folds and records without"),
  ],
)
def test_records_that_do_not_belong_together_are_refused(change, sentence):
  with pytest.raises(ValueError, match=sentence):
    report.summarise([record("a"), record("b", **change)])


def test_nothing_and_duplicates_are_refused():
  with pytest.raises(ValueError, match="no records"):
    report.summarise([])
  with pytest.raises(ValueError, match="two records for method 'a'"):
    report.summarise([record("a"), record("a")])


def test_order_is_that_of_the_records():
  names = ["z", "joint", "a"]
  assert [r.method for r in report.summarise([record(n) for n in names]).rows] == names


def test_rows_depend_on_no_other_row_but_through_holm():
  few = report.summarise(rows(joint=NOISY["joint"], better=NOISY["better"]))
  many = by_name(report.summarise(rows(**NOISY)))["better"].differences["joint"]
  one = by_name(few)["better"].differences["joint"]
  assert one[:3] == many[:3]
  assert one.p_holm == one.p < many.p_holm
  assert np.isfinite(many.p_holm)
