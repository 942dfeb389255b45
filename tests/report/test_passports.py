"""A score of the user's own is shown, marked and spoken of by its direction and unit."""

import numpy as np
import pytest

from mmfuse import metrics, report
from mmfuse.report import _curves
from mmfuse.report._words import notes

from ._records import NOISY, record, rows

COST = metrics.Score("cost", larger_is_better=False, words="cost in EUR")
RISK = metrics.Score("risk", larger_is_better=False, share=True)
COSTS = {  # the mirror of NOISY: "better" costs more
  name: [1.0 - x for x in values]
  for name, values in {**NOISY, "better": NOISY["worse"], "worse": NOISY["better"]}.items()
}


def _of(score, **scores):
  """Records as `train.fit` leaves them: the passport travels with the metric."""
  own = metrics.described([score])[score.name]
  return [{**r, "metric": score.name, "passport": own} for r in rows(**scores)]


def test_only_what_is_not_known_by_its_name_is_described():
  assert metrics.described(metrics.SCORES.values()) == {}
  assert metrics.described([metrics.Score("plain")]) == {}
  assert metrics.Score(**metrics.described([COST])["cost"]) == COST


def test_less_is_better_where_the_passport_says_so():
  summary = report.summarise(_of(COST, **COSTS))
  assert summary.score == COST
  (best,) = [r for r in summary.rows if r.best_fused]
  assert best.method == "worse"  # 1 - .60, the least
  assert best.differences["joint"].mean == pytest.approx(-0.102)
  said = report.sentence(summary)
  assert said.startswith(
    "Beyond noise, better than joint: worse (-0.102); worse than joint: better"
  )
  assert "cost in EUR" in said and "points" not in said
  (line,) = [
    x for x in report.markdown(summary).splitlines() if x.startswith("| worse (best fused")
  ]
  assert "| -0.102 ± " in line and "*" in line


def test_the_same_scores_without_a_passport_are_read_the_other_way():
  plain = [{k: v for k, v in r.items() if k != "passport"} for r in _of(COST, **COSTS)]
  summary = report.summarise(plain)
  assert [r.method for r in summary.rows if r.best_fused] == ["better"]
  assert "better than joint: better (+0.098)" in report.sentence(summary)
  kept = report.summarise(plain, info={"scores": metrics.described([COST])})
  assert kept.rows == report.summarise(_of(COST, **COSTS)).rows and kept.score == COST


def test_a_share_of_the_users_is_shown_in_percent(tmp_path):
  summary = report.summarise(_of(RISK, joint=[0.5, 0.52, 0.51], low=[0.3, 0.31, 0.3]))
  assert "Test risk in percent" in report.caption(summary)
  assert "better than joint: low (-20.7) (points" in report.sentence(summary)
  page = report.html(summary, {}, tmp_path / "page.html").read_text()
  (cell,) = [x for x in page.split("<td") if "-20.7 ±" in x and "data-value" in x]
  assert cell.startswith(' class="up"')


def test_worse_than_a_baseline_is_above_it():
  summary = report.summarise(_of(COST, joint=[5.0, 6.0], cheap=[1.0, 1.5]), majority=3.0)
  (said,) = [n for n in notes(summary) if "majority class" in n]
  assert said.startswith("joint is above the majority class")
  lines = [{"name": "linear", "test": 1.0, "validation": 1.0}]
  summary = report.summarise(_of(COST, joint=[5.0, 6.0], cheap=[1.1, 1.5]), lines=lines)
  assert report.sentence(summary).startswith("No fused row beats linear")
  summary = report.summarise(_of(COST, joint=[5.0, 6.0], cheap=[0.1, 0.11]), lines=lines)
  assert "beats linear" not in report.sentence(summary)


def test_a_further_score_of_the_users_has_its_words_in_its_column(tmp_path):
  more = {"scores": {"test": {"cost": 2.0}}}
  found = [record("joint", s, **more) for s in (0, 1)]
  info = {"scores": metrics.described([COST])}
  page = report.html(report.summarise(found, info=info), {}, tmp_path / "page.html").read_text()
  assert ">cost in EUR</button>" in page


def test_what_is_chosen_by_a_loss_over_subsets_is_best_where_it_is_least():
  def chosen(method, nll):
    scores = {"validation": {"mean/nll": nll}, "test": {}}
    return record(method, select="mean/nll", scores=scores)

  assert report.best_fused([chosen("low", 0.2), chosen("high", 0.9)]) == "low"


def test_an_epoch_that_blew_up_flattens_no_curve_of_a_loss():
  values = np.asarray([0.5, 0.4, 0.45, 0.42, 0.41, 0.4, 0.43, 1e6])
  low, high = _curves._limits(values, -1)
  assert low < 0.4 and 0.5 < high < 1.0
  assert _curves._limits(-values, 1) == (-high, -low)
