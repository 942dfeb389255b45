"""Markdown, CSV and terminal: every number where it belongs, n/a where there is none."""

import csv
import io
from types import SimpleNamespace

import pytest
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
    "method", "fused", "audio", "image", "vs joint", "vs uniform", "validation", "learning rate",
    "step time", "parameters", "gradient evaluations", "contribution"]
  assert rule.count("|") == head.count("|")
  assert cells(joint)[4] == "baseline"
  row = dict(zip(names, cells(better)))
  assert row["fused"] == "60.6 ± 2.4"  # s = .0195, t_{.975, 4} = 2.776, n = 5
  assert row["vs joint"] == "+10.2 ± 1.0*"
  assert row["learning rate"] == "0.03"
  assert (row["step time"], row["parameters"]) == ("1.25x", "1.2k")
  assert row["gradient evaluations"] == "1.20M"
  assert row["contribution"] == "audio +10.0, image +20.0"


def test_majority_and_unavailable_rows_come_last():
  text = report.markdown(small())
  *_, majority, absent = lines_of(text)
  assert cells(majority)[:3] == ["majority class", "25.0", "n/a"]
  assert cells(absent)[:2] == ["mla", "n/a: needs 3"]
  assert {line.count(" | ") for line in lines_of(text)} - {0} == {11}


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
  assert row[0] == "unimodal/audio (best)"
  assert row[1:4] == ["50.0", "50.0", "n/a"]
  assert "0.03 (edge)" in row
  assert "(best): the best single modality by validation." in text and "- (edge):" in text


def test_names_cannot_break_the_table():
  text = report.markdown(report.summarise([record("a|b\nc")], unavailable={"d|e": "x|y"}))
  assert "| a\\|b c |" in text and "| d\\|e | n/a: x\\|y |" in text


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
  assert list(table) == ["joint", "uniform", "better", "worse", "majority class", "mla"]
  better = table["better"]
  row = summary.rows[2]
  assert float(better["test"]) == row.test.mean
  assert float(better["test_low"]) == row.test.mean - row.test.half
  assert float(better["vs_joint_p_holm"]) == row.differences["joint"].p_holm
  assert better["vs_joint_significant"] == "True"
  assert float(better["test_macro_f1"]) == row.scores["macro_f1"].mean
  assert float(better["contribution_image"]) == 0.2
  assert table["joint"]["vs_joint"] == ""
  assert (table["majority class"]["test"], table["majority class"]["n"]) == ("0.25", "")
  assert table["mla"]["unavailable"] == "needs 3" and table["mla"]["test"] == ""


def test_csv_of_unavailable_rows_alone():
  text = report.csv(report.summarise([], unavailable={"mla": "needs, 3"}))
  assert text == 'method,unavailable\nmla,"needs, 3"\n'


def wide(count, name):
  """`count` modalities and 15 methods with long names."""
  heads = {"fused": 0.5, **{f"{name}_{i}": 0.5 for i in range(count)}}
  methods = ["joint", "uniform", *(f"a_method_with_a_rather_long_name_{i}" for i in range(13))]
  return [record(m, s, test=heads, validation=heads) for m in methods for s in (0, 1)]


@pytest.mark.parametrize(
  ("count", "name"), [(1, "x"), (2, "accelerometer"), (3, "m"), (9, "sensor")])
def test_terminal_fits_100_columns(count, name):
  console = Console(width=100, file=io.StringIO(), record=True)
  table = report.terminal(report.summarise(wide(count, name), unavailable={"mla": "needs [bold]"}))
  assert console.measure(table).maximum <= 100
  console.print(table)
  text = console.export_text()
  assert all(len(line.rstrip()) <= 100 for line in text.split("\n"))
  assert "mla: n/a: needs [bold]" in text
  assert "…" not in text


def test_terminal_keeps_the_modalities_of_two_long_names():
  table = report.terminal(report.summarise(wide(2, "accelerometer")))
  assert len(table.columns) >= 7
