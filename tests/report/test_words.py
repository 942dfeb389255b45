"""Caption, sentence and notes say what is there and no more."""

import pytest

from mmfuse import report
from mmfuse.report._words import notes

from ._records import NOISY, record, rows

INFO = {
  "name": "watch_imu",
  "task": "classification",
  "sizes": {"train": 90, "test": 30},
  "date": "2026-11-22",
}


def test_sentence_names_who_differs_and_which_way():
  said = report.sentence(report.summarise(rows(**NOISY)))
  assert said.startswith("Beyond noise, better than joint: better (+10.2); worse than joint: worse")
  assert "better than uniform: better" in said
  assert said.endswith(
    "(points, test accuracy, paired t over 5 seeds, Holm-adjusted p < .05 over 4 rows)."
  )
  assert said.count(".\n") == 0


def test_the_largest_difference_comes_first():
  found = rows(joint=NOISY["joint"], a=NOISY["better"], b=[x + 0.2 for x in NOISY["better"]])
  said = report.sentence(report.summarise(found, baselines=("joint",)))
  assert "better than joint: b (+30.2), a (+10.2) (points" in said


def test_a_null_result_is_a_result():
  quiet = rows(joint=NOISY["joint"], uniform=NOISY["uniform"])
  said = report.sentence(report.summarise(quiet))
  assert said.startswith("No row differs from joint or from uniform beyond noise (")


def test_one_column_may_be_null():
  found = rows(joint=NOISY["joint"], uniform=NOISY["better"], near=[0.61, 0.62, 0.59, 0.61, 0.60])
  said = report.sentence(report.summarise(found))
  assert "better than joint: uniform (+10.2), near (+10.2); worse than uniform" in said
  found = [r for r in found if r["method"] != "joint"]
  said = report.sentence(report.summarise([*found, *rows(joint=[0.6, 0.63, 0.59, 0.61, 0.61])]))
  assert said.startswith("No row differs from joint or from uniform")


@pytest.mark.parametrize(
  ("records", "start"),
  [
    (rows(joint=[0.5], x=[0.9]), "With one seed, no row can be told to differ from joint"),
    (rows(x=[0.5, 0.6], y=[0.5, 0.6]), "No baseline was run"),
    (rows(joint=[0.5, 0.6]), "Only joint was run"),
  ],
)
def test_what_cannot_be_said(records, start):
  assert report.sentence(report.summarise(records)).startswith(start)


def test_caption_says_what_varies_and_the_unit():
  said = report.caption(report.summarise(rows(**NOISY), info=INFO))
  assert said.startswith("watch_imu (classification; 90 train, 30 test rows; 2026-11-22). Test acc")
  assert "over 5 seeds of one split." in said
  assert "initialisation and batch order, not the choice of test examples" in said
  assert "not a comparison" not in said


def test_caption_of_folds():
  records = [record(m, s, 0.5, fold=f) for m in ("joint", "x") for f in range(5) for s in range(2)]
  said = report.caption(report.summarise(records))
  assert "over 5 folds x 2 seeds." in said
  assert "is the fold, seeds averaged within it" in said
  said = report.caption(report.summarise(records, info={"varies": "5 group folds"}))
  assert "over 5 group folds." in said


def test_one_rate_is_said_in_caption_and_sentence():
  summary = report.summarise(rows(**NOISY), info={"one_rate": True})
  assert report.caption(summary).startswith(
    "Note: one learning rate for all rows: not a comparison of methods."
  )
  assert "at one learning rate for all rows" in report.sentence(summary)


def test_one_seed_is_said():
  said = report.caption(report.summarise(rows(joint=[0.5], x=[0.6])))
  assert "Test accuracy in percent, 1 seed of one split. One seed: there is no interval" in said
  assert "±" not in said


def test_a_modality_column_is_explained_by_the_rows_that_are_there():
  def said(*methods):
    return " ".join(notes(report.summarise([record(m, s) for m in methods for s in (0, 1)])))

  text = said("unimodal/audio", "late_average", "joint", "uniform")
  assert (
    "A method with a loss for that head (uniform, late_average) trains head and encoder" in text
  )
  assert (
    "of any other (joint) the head is a probe, fitted to the modality's features without" in text
  )
  assert "late_average: one learning rate and one epoch for all its modalities" in text
  text = said("mimo")
  assert "loss for that head trains" in text and "any other the head is a probe" in text
  assert "late_average" not in text
  assert "probe" not in said("unimodal/audio")


def test_scores_that_are_no_shares_are_not_in_percent():
  records = [record(m, s, x, metric="r2") for m, xs in NOISY.items() for s, x in enumerate(xs)]
  summary = report.summarise(records)
  assert "Test R²: mean" in report.caption(summary)
  assert "better (+0.102)" in report.sentence(summary)
  assert "points" not in report.sentence(summary) + report.caption(summary)
