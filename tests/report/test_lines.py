"""Lines of deterministic baselines: where they stand, what rows differ from them by, what is said."""

import csv
import io

import pytest

from mmfuse import report

from ._records import NOISY, record, rows


def line(name, test=0.5, *, fold=None, rows=30, why=None, validation=None):
  """An entry of `baselines.json`."""
  return {
    "name": name,
    "fold": fold,
    "metric": "accuracy",
    "test": test,
    "validation": test if validation is None else validation,
    "C": None if why else 0.01,
    "rows": {"test": rows},
    "scores": {"test": {} if why else {"macro_f1": test - 0.1}},
    "why": why,
  }


LINES = [
  line("linear", 0.55),
  line("linear/audio", 0.45),
  line("majority class", 0.25),
  line("linear/image", None, why="image is in no test row"),
]


def summary_of(lines=LINES, records=None, **options):
  return report.summarise(rows(**NOISY) if records is None else records, lines=lines, **options)


def cells(text, name):
  head, *lines = [x for x in text.split("\n") if x.startswith("|")]
  split = lambda x: [c.strip() for c in x.strip().strip("|").split(" | ")]
  return dict(zip(split(head), next(split(x) for x in lines if x.startswith(f"| {name} "))))


def test_lines_stand_between_the_rows_and_the_majority_class():
  text = report.markdown(summary_of())
  names = [x.split("|")[1].strip() for x in text.split("\n") if x.startswith("| ")]
  names = [name.removesuffix(" (best fused)") for name in names]
  lines = ["linear", "linear/audio", "majority class of training", "linear/image"]
  assert names == ["method", *NOISY, *lines]
  audio = cells(text, "linear/audio")
  assert (audio["fused"], audio["audio"], audio["image"]) == ("45.0", "45.0", "n/a")
  assert (audio["vs linear"], audio["vs joint"], audio["validation"]) == ("-10.0", "n/a", "45.0")
  assert cells(text, "linear")["vs linear"] == "baseline"
  assert cells(text, "majority class of training")["fused"] == "25.0"
  assert "image is in no test row" in text


def test_a_difference_to_linear_has_the_interval_of_the_row():
  summary = summary_of()
  for row in summary.rows:
    found = row.differences["linear"]
    assert found.mean == pytest.approx(row.test.mean - 0.55)
    assert (found.half, found.n) == (pytest.approx(row.test.half), 5)
    assert (found.p, found.p_holm, found.significant) == (None, None, False)
  assert cells(report.markdown(summary), "better")["vs linear"] == "+5.6 ± 2.4"


def test_the_other_differences_do_not_see_it():
  with_lines, without = summary_of(), report.summarise(rows(**NOISY))
  for a, b in zip(with_lines.rows, without.rows):
    assert {k: v for k, v in a.differences.items() if k != "linear"} == b.differences


def test_over_folds_it_is_paired_by_fold():
  scores = {0: (0.5, 0.7), 1: (0.6, 0.6), 2: (0.8, 0.8)}
  records = [record("x", s, v, fold=f) for f, both in scores.items() for s, v in enumerate(both)]
  lines = [line("linear", v, fold=f) for f, v in ((0, 0.5), (1, 0.6), (2, 0.7))]
  lines += [
    line("linear/a", 0.4, fold=0),
    line("linear/a", 0.5, fold=1),
    line("linear/a", None, fold=2, why="a is in no test row"),
  ]
  summary = summary_of(lines, records)
  found = summary.rows[0].differences["linear"]
  mean, half, n = report.estimate([0.1, 0.0, 0.1])
  assert (found.mean, found.half, found.n) == (pytest.approx(mean), pytest.approx(half), n)
  assert summary.lines[0].test == report.estimate([0.5, 0.6, 0.7])
  assert summary.lines[1].test.n == 2
  assert "linear/a, fold 2: n/a: a is in no test row" in summary.notes


def test_scores_on_other_rows_are_not_compared():
  lines = [line("linear", 0.4, rows=30), line("linear/audio", 0.9, rows=3)]
  summary = summary_of(lines)
  assert summary.lines[1].differences == {"linear": None}
  assert "linear/audio" not in report.sentence(summary)


def test_csv_and_html_have_them_too(tmp_path):
  summary = summary_of()
  table = {r["method"]: r for r in csv.DictReader(io.StringIO(report.csv(summary)))}
  assert list(table)[-4:-2] == ["linear", "linear/audio"]
  assert list(table)[-2:] == ["majority class of training", "linear/image"]
  assert float(table["better"]["vs_linear"]) == summary.rows[2].differences["linear"].mean
  assert (table["linear"]["test"], table["linear"]["hyper"]) == ("0.55", '[{"C": 0.01}]')
  assert float(table["linear"]["test_macro_f1"]) == pytest.approx(0.45)
  page = report.html(summary, [], tmp_path / "i.html").read_text()
  assert "vs linear" in page and "linear/audio" in page


def test_a_terminal_shows_their_differences_where_there_is_room():
  from rich.console import Console

  def shown(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.terminal(summary_of()))
    return console.export_text()

  assert "linear" in shown(160) and "linear/audio" in shown(160)
  assert "linear/audio" in shown(80)


def test_bars_mark_linear(tmp_path):
  pytest.importorskip("matplotlib")
  plain = report.bars(summary_of([]), tmp_path / "plain.png").read_bytes()
  assert report.bars(summary_of(), tmp_path / "linear.png").read_bytes() != plain


# What is said.


def test_a_table_that_linear_leads_says_so_first():
  said = report.sentence(summary_of([line("linear", 0.792)]))
  assert said.startswith(
    "No fused row beats linear (logistic regression on the flattened inputs, 79.2). Beyond noise, "
  )
  page = report.markdown(summary_of([line("linear", 0.792)], info={"task": "regression"}))
  assert "(ridge regression on the flattened inputs" in page


def test_being_ahead_by_less_than_the_interval_is_not_ahead():
  said = report.sentence(summary_of([line("linear", 0.59)]))  # better: 60.6 ± 2.4
  assert said.startswith("No fused row beats linear (") and "59.0) by more than its inter" in said
  assert report.sentence(summary_of([line("linear", 0.55)])).startswith("Beyond noise, ")


def test_only_fused_rows_count_where_there_are_any():
  single = [record("unimodal/audio", s, 0.9) for s in range(2)]
  fused = [record("joint", s, 0.5 + s / 100) for s in range(2)]
  lines = [line("linear", 0.7)]
  assert report.sentence(summary_of(lines, single + fused)).startswith("No fused row beats linear")
  assert "beats linear" not in report.sentence(summary_of(lines, single))
  assert report.sentence(summary_of([line("linear", 0.95)], single)).startswith("No row beats lin")


def test_fusion_that_loses_to_the_best_single_modality_is_said():
  records = [*rows(joint=[0.5, 0.52], unimodal__audio=[0.7, 0.7], unimodal__image=[0.6, 0.6])]
  end = "No fused row beats unimodal/audio (70.0), the best single modality by validation."
  assert report.sentence(summary_of([], records)).endswith(end)
  lines = [
    line("linear", 0.3),
    line("linear/audio", 0.6),
    line("linear/image", 0.8, validation=0.1),
  ]
  said = report.sentence(summary_of(lines, records))
  assert "No fused row beats unimodal/audio (70.0) or linear/audio (60.0), the best single" in said
  assert said.endswith("not gain from fusion: linear/audio (60.0) beats or equals it.")
  ahead = [r for r in records if r["method"] != "joint"] + rows(joint=[0.8, 0.82])
  assert "single modality" not in report.sentence(summary_of(lines, ahead))


def test_one_modality_is_not_compared_with_itself():
  head = {"fused": 0.5, "audio": 0.5}
  records = [
    record(m, s, test=head, validation=head) for m in ("joint", "unimodal/audio") for s in (0, 1)
  ]
  said = report.sentence(summary_of([line("linear", 0.4), line("linear/audio", 0.4)], records))
  assert "single modality" not in said and "fusion" not in said


def test_rows_below_the_constant_predictor_are_said_with_a_remedy():
  summary = summary_of([line("majority class", 0.45)])
  (note,) = [x for x in report.markdown(summary).split("\n") if "below" in x]
  assert note == (
    "- worse is below the majority class of training (45.0): training did not work there; try lower learning "
    "rates (--rates), more epochs (--epochs) or another encoder (--encoder)."
  )
  assert "below" not in report.markdown(summary_of([line("majority class", 0.2)]))
