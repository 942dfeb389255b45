"""Markdown, CSV and terminal: every number where it belongs, n/a where there is none."""

import csv
import io
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from mmfuse import report

from ._records import NOISY, record, rows


def cells(line):
  return [c.strip() for c in line.strip().strip("|").split(" | ")]


def lines_of(text):
  return [line for line in text.split("\n") if line.startswith("|")]


def small(**options):
  return report.summarise(rows(**NOISY), majority=0.25, unavailable={"mla": "needs 3"}, **options)


def test_markdown_row_by_hand():
  head, rule, joint, _, better, *_ = lines_of(report.markdown(small()))
  names = cells(head)
  assert names == [
    "method",
    "fused",
    "validation",
    "audio",
    "image",
    "vs joint",
    "vs uniform",
    "learning rate",
    "trials",
    "step time",
    "parameters",
    "gradient evaluations",
    "contribution",
  ]
  assert rule.count("|") == head.count("|")
  assert cells(joint)[5] == "baseline"
  row = dict(zip(names, cells(better)))
  assert (row["fused"], row["validation"]) == (
    "60.6 ± 2.4",
    "60.6",
  )  # s = .0195, t_{.975, 4} = 2.776, n = 5
  assert row["vs joint"] == "+10.2 ± 1.0*"
  assert row["learning rate"] == "0.03"
  assert (row["step time"], row["parameters"]) == ("1.25x", "1.2k")
  assert row["gradient evaluations"] == "1.20M"
  assert row["contribution"] == "audio +10.0, image +20.0"


def test_majority_and_unavailable_rows_come_last():
  text = report.markdown(small())
  *_, majority, absent = lines_of(text)
  assert cells(majority)[:3] == ["majority class of training", "25.0", "n/a"]
  assert cells(absent)[:2] == ["mla", "n/a: needs 3"]
  assert {line.count(" | ") for line in lines_of(text)} - {0} == {12}


def test_markdown_carries_caption_sentence_and_notes():
  summary = small(info={"notes": ["Labels were shuffled."]})
  text = report.markdown(summary)
  assert text.startswith(report.caption(summary))
  assert report.sentence(summary) in text
  assert "- Labels were shuffled.\n" in text


def test_nothing_is_na_and_marks_are_explained():
  head = {"fused": 0.5, "audio": 0.5, "image": None}
  edge = {"edge": True}
  text = report.markdown(report.summarise([record("unimodal/audio", test=head, tuning=edge)]))
  row = cells(lines_of(text)[2])
  assert row[0] == "unimodal/audio (best single)"
  assert row[1:5] == ["50.0", "50.0", "50.0", "n/a"]
  assert "0.03 (edge)" in row
  assert "- (best single): the best single modality by validation." in text
  assert "- (edge): the chosen value is still the first or last of those tried, after" in text
  assert "best fused" not in text and "own head" not in text


def test_the_constant_predictor_is_that_of_the_training_rows():
  names = {
    "classification": "majority class of training",
    "regression": "mean of training labels",
    "multilabel": "majority per training label",
  }
  for task, name in names.items():
    summary = report.summarise(rows(x=[0.5]), majority=0.2, info={"task": task})
    assert cells(lines_of(report.markdown(summary))[-1])[0] == name


def test_without_step_times_there_is_no_such_column():
  text = report.markdown(report.summarise([record("x", relative_step_time=None), record("y")]))
  assert "step time" in text
  found = report.summarise([record(m, relative_step_time=None) for m in "xy"], majority=0.2)
  assert "step time" not in report.markdown(found)
  assert "relative_step_time" in report.csv(found)
  assert "step" not in shown_at(found, 100)


def test_names_cannot_break_the_table():
  text = report.markdown(report.summarise([record("a|b\nc")], unavailable={"d|e": "x|y"}))
  assert "| a\\|b c (best fused) |" in text and "| d\\|e | n/a: x\\|y |" in text


def test_results_of_fit_are_summarised():
  fits = {m: SimpleNamespace(records=lambda name, m=m: rows(**{name: NOISY[m]})) for m in NOISY}
  assert report.markdown(fits) == report.markdown(report.summarise(rows(**NOISY)))
  assert report.csv(fits) == report.csv(report.summarise(rows(**NOISY)))
  with pytest.raises(TypeError, match=r"expected a report.Summary.*got list"):
    report.markdown([])


def test_numbers_of_other_metrics_and_sizes():
  scores = [(0, 0.5), (1, -0.25)]
  odd = {"metric": "r2", "parameters": None, "learning_rate": 1 / 3000}
  text = report.markdown(report.summarise([record("joint", s, x, **odd) for s, x in scores]))
  row = cells(lines_of(text)[2])
  assert row[1].startswith("0.125 ± ")
  assert "n/a" in row and "0.000333" in row


def test_a_difference_that_rounds_to_zero_has_no_sign():
  text = report.markdown(report.summarise(rows(joint=[0.5, 0.5], x=[0.4996, 0.50041])))
  assert "| 0.0 ± " in lines_of(text)[3] and "-0.0" not in text


def test_csv_has_full_precision_and_one_line_per_row():
  summary = small()
  table = {r["method"]: r for r in csv.DictReader(io.StringIO(report.csv(summary)))}
  assert list(table) == ["joint", "uniform", "better", "worse", "majority class of training", "mla"]
  better = table["better"]
  row = summary.rows[2]
  assert float(better["test"]) == row.test.mean
  assert float(better["test_low"]) == row.test.mean - row.test.half
  assert float(better["vs_joint_p_holm"]) == row.differences["joint"].p_holm
  assert better["vs_joint_significant"] == "True"
  assert float(better["test_macro_f1"]) == row.scores["macro_f1"].mean
  assert float(better["contribution_image"]) == 0.2
  assert table["joint"]["vs_joint"] == ""
  constant = table["majority class of training"]
  assert (constant["test"], constant["n"], constant["best_fused"]) == ("0.25", "", "")
  assert {m: r["best_fused"] for m, r in table.items() if r["best_fused"]} == {
    "joint": "False",
    "uniform": "False",
    "better": "True",
    "worse": "False",
  }
  assert {r["best_unimodal"] for r in table.values()} == {"False", ""}
  assert table["mla"]["unavailable"] == "needs 3" and table["mla"]["test"] == ""


def test_csv_of_unavailable_rows_alone():
  text = report.csv(report.summarise([], unavailable={"mla": "needs, 3"}))
  assert text == 'method,unavailable\nmla,"needs, 3"\n'


def wide(count, name):
  """`count` modalities and 15 methods with long names."""
  heads = {"fused": 0.5, **{f"{name}{i}": 0.1 + 0.01 * i for i in range(count)}}
  methods = ["joint", "uniform", *(f"a_method_with_a_rather_long_name_{i}" for i in range(13))]
  return [record(m, s, test=heads, validation={"fused": 0.7}) for m in methods for s in (0, 1)]


def shown_at(summary, width):
  """What a terminal of that many columns shows."""
  console = Console(width=width, file=io.StringIO(), record=True)
  console.print(report.terminal(summary, width))
  return console.export_text()


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize(
  ("count", "name"),
  [(1, "x"), (2, "accelerometer"), (6, "sensor"), (12, "m"), (2, "加速度計の測定値その")],
)
def test_a_terminal_shows_every_modality_whatever_its_width(count, name, width):
  summary = report.summarise(wide(count, name), unavailable={"mla": "needs [bold]"})
  text = shown_at(summary, width)
  lines = [line.rstrip() for line in text.split("\n")]
  assert max(map(cell_len, lines)) <= width
  assert "mla: n/a: needs [bold]" in lines and "…" not in text
  uniform = [line for line in lines if line.startswith("uniform ")]
  numbers = " ".join(uniform)
  assert all(f" {10 + i}.0 ± 0.0" in numbers for i in range(count))
  assert "50.0 ± 0.0" in uniform[0] and " 70.0 " in uniform[0]  # test and, beside it, validation
  (said,) = [line for line in text.split("\n\n")[-1].split("\n") if line.startswith("Not shown:")]
  assert ("step time" in said) == ("1.25x" not in text) and "parameters" in said


def test_a_table_that_fits_is_one_table():
  text = shown_at(report.summarise(wide(2, "ab")), 160)
  assert [line.split()[:4] for line in text.split("\n") if line.startswith("method")] == [
    ["method", "fused", "validation", "ab0"]
  ]
  assert "Not shown: trials, parameters, gradient evaluations, contribution (see table.md)." in text


def test_a_folded_table_repeats_the_rows_that_have_something_there():
  heads = {"fused": 0.5, **{f"m{i:02d}": None for i in range(12)}}
  records = [
    record(f"unimodal/m{i:02d}", s, test={**heads, f"m{i:02d}": 0.5}, validation=heads)
    for i in range(12)
    for s in (0, 1)
  ]
  tables = shown_at(report.summarise(records, majority=0.2, baselines=()), 100).split("\n\n")[:-1]
  names = [
    [line.split()[0] for line in t.split("\n") if line.startswith(("uni", "maj"))] for t in tables
  ]
  assert names == [
    [*(f"unimodal/m{i:02d}" for i in range(12)), "majority"],
    [f"unimodal/m{i:02d}" for i in range(6)],
    [f"unimodal/m{i:02d}" for i in range(6, 12)],
  ]


def test_a_dumb_terminal_is_measured_like_any_other(monkeypatch):
  """Its console says 80 columns whatever it is asked, and everything would seem to fit."""
  summary = report.summarise(wide(6, "sensor"))
  text = shown_at(summary, 80)
  monkeypatch.setenv("TERM", "dumb")
  monkeypatch.setenv("FORCE_COLOR", "1")
  tables = [x for x in report.terminal(summary, 80).renderables if hasattr(x, "columns")]
  assert len(tables) == text.count("────\n") == 3


def test_a_narrow_terminal_loses_no_number():
  text = shown_at(report.summarise(rows(**NOISY), majority=0.25), 30)
  assert all(cell_len(line.rstrip()) <= 30 for line in text.split("\n"))
  for number in ("60.6 ± 2.4", "+10.2 ± 1.0*", "0.03", "1.25x", "25.0"):
    assert number in text


def test_the_trials_of_a_search_are_counted():
  """Points, not runs: two rates with two seeds each, and of two folds the one that went further."""
  tried = lambda *rates: {
    "trials": [{"learning_rate": r, "hyper": {}, "seed": s} for r in rates for s in (0, 1)]
  }
  folds = [record("joint", 0, fold=0, tuning=tried(0.01, 0.03))]
  folds.append(record("joint", 0, fold=1, tuning=tried(0.01, 0.03, 0.1)))
  head, _, joint, *_ = lines_of(report.markdown(report.summarise(folds)))
  assert dict(zip(cells(head), cells(joint)))["trials"] == "3"
