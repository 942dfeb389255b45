"""The search sees no test row, spends the same on every row, and chooses by one rule."""

import collections
import dataclasses

import numpy as np
import optax
import pytest

from mmfuse import methods, objectives, train
from mmfuse.protocol import Compare, Search
from mmfuse.protocol._rows import Row, Trial, make_rows
from mmfuse.protocol._search import Diverged
from mmfuse.protocol._store import Store, read_json

from ._helpers import records

RATES = (0.01, 0.03, 0.1)


def test_no_fit_is_given_the_test_rows(finished):
  assert finished.fits and all(f["splits"].test is None for f in finished.fits)
  for fit in finished.fits:
    held = {*fit["splits"].train.index, *fit["splits"].validation.index}
    assert not held & {r for r in range(80) if r // 2 % 5 == 4}


def test_a_search_refuses_test_rows(finished, tmp_path):
  splits = finished.fits[0]["splits"]
  whole = dataclasses.replace(splits, test=splits.validation)
  with pytest.raises(ValueError, match="must not hold test rows"):
    Search(Compare(), Store(tmp_path), whole, None, lambda *_: None, {})


def test_no_run_is_trained_twice_and_further_seeds_only_at_the_chosen_rate(finished):
  trained = [f["checkpoint_dir"] for f in finished.fits if "checkpoint_dir" in f]
  assert len(finished.fits) - len(trained) == 1  # the estimate
  assert len(trained) == len(set(trained)) == 6 * (3 * 2 + 1)
  assert len({f["batch_size"] for f in finished.fits}) == 1
  assert {f["epochs"] for f in finished.fits} == {2}


def test_every_row_spends_the_same(finished):
  found = records(finished.run)
  assert {r["gradient_evaluations"] for r in found} == {(3 * 2 + 1) * 2 * 48}
  for r in found:
    assert r["tuning"]["rates"] == list(RATES)
    seen = [(t["learning_rate"], t["seed"]) for t in r["tuning"]["trials"]]
    assert seen == [(rate, seed) for rate in RATES for seed in (0, 1)]


def test_the_trials_of_the_chosen_rate_are_final_runs_0_and_1(finished):
  for r in records(finished.run):
    if r["seed"] < 2:
      trial = next(
        t
        for t in r["tuning"]["trials"]
        if (t["learning_rate"], t["seed"]) == (r["learning_rate"], r["seed"])
      )
      assert trial["validation"] == r["validation"]["fused"]


def test_the_choice_of_every_row_follows_the_rule(finished):
  for r in records(finished.run):
    trials = r["tuning"]["trials"]
    means = {
      rate: np.mean([t["validation"] for t in trials if t["learning_rate"] == rate])
      for rate in RATES
    }
    best = max(means.values())
    assert r["learning_rate"] == min(rate for rate in RATES if means[rate] >= best - 0.002)
    assert r["tuning"]["edge"] == (r["learning_rate"] != 0.03)
    assert r["tuning"]["spread"] == pytest.approx(best - min(means.values()))


def test_a_choice_is_written_beside_its_runs(finished):
  choice = read_json(finished.run / "runs" / "joint" / "choice.json")
  joint = records(finished.run)[0]
  assert choice["learning_rate"] == joint["learning_rate"]
  assert choice["config"] == joint["config_hash"]


def _log(seed, best):
  log = train.RunLog(seed, None)
  log.best = best
  return log


def _choose(finished, tmp_path, scores, cfg=None, name="joint"):
  """(the choice where a trial's runs score `scores[trial] = (seed 0, seed 1)`, the runs asked)."""
  cfg = cfg or Compare(seeds=3)
  splits = finished.fits[0]["splits"]
  search = Search(cfg, Store(tmp_path), splits, None, lambda *_: None, {})
  asked = []

  def runs(row, wanted):
    asked.extend(wanted)
    return [_log(s, scores[t][s] if s < 2 else 0.0) for s, t in wanted]

  search.runs = runs
  (row,), _ = make_rows(Compare(methods=(name,)), splits.modalities, "classification")
  return search.choose(row), asked


def _at(*means):
  return {Trial(r): (v, v) for r, v in zip(RATES, means)}


@pytest.mark.parametrize(
  "means, rate, edge",
  [
    ((0.5, 0.9, 0.7), 0.03, False),
    ((0.5, 0.7, 0.9), 0.1, True),
    ((0.8985, 0.9, 0.9), 0.01, True),  # within .002: the smaller rate
    ((0.897, 0.9, 0.9), 0.03, False),  # beyond
    ((0.897, 0.8995, 0.9), 0.03, False),
  ],
)
def test_ties_within_two_thousandths_go_to_the_smaller_rate(finished, tmp_path, means, rate, edge):
  choice, asked = _choose(finished, tmp_path, _at(*means))
  assert (choice["learning_rate"], choice["edge"]) == (rate, edge)
  assert choice["spread"] == pytest.approx(max(means) - min(means))
  final = collections.Counter(t.rate for s, t in asked if s == 2)
  assert final == {rate: 1}  # seed 2 runs at the chosen rate only


def test_the_mean_over_both_seeds_decides(finished, tmp_path):
  scores = {Trial(0.01): (1.0, 0.0), Trial(0.03): (0.7, 0.6), Trial(0.1): (0.2, 0.9)}
  assert _choose(finished, tmp_path, scores)[0]["learning_rate"] == 0.03


def test_a_rate_at_which_a_seed_diverges_is_not_chosen(finished, tmp_path):
  scores = {Trial(0.01): (0.5, 0.5), Trial(0.03): (0.6, 0.6), Trial(0.1): (1.0, None)}
  choice, _ = _choose(finished, tmp_path, scores)
  assert choice["learning_rate"] == 0.03
  assert choice["trials"][-1]["validation"] is None
  assert choice["spread"] == pytest.approx(0.1)


def test_a_row_of_which_nothing_is_left_says_so(finished, tmp_path):
  with pytest.raises(Diverged, match="every trial diverged"):
    _choose(finished, tmp_path, {Trial(r): (None, None) for r in RATES})


def test_the_edge_of_a_hyper_parameter_is_marked_too(finished, tmp_path):
  cfg = Compare(seeds=2, tune=9)
  trials = [Trial(r, (("lam", v),)) for v in (0.3, 1.0, 3.0) for r in RATES]

  def best(trial):
    return {t: (0.9, 0.9) if t == trial else (0.5, 0.5) for t in trials}

  for trial, edge in (
    (Trial(0.03, (("lam", 1.0),)), False),
    (Trial(0.03, (("lam", 3.0),)), True),
    (Trial(0.1, (("lam", 1.0),)), True),
  ):
    choice, _ = _choose(finished, tmp_path, best(trial), cfg, "mimo")
    assert (choice["learning_rate"], choice["hyper"]) == (trial.rate, dict(trial.hyper))
    assert choice["edge"] == edge


def test_one_rate_has_no_edge(finished, tmp_path):
  cfg = Compare(seeds=2, tune=1)
  choice, _ = _choose(finished, tmp_path, {Trial(0.03): (0.5, 0.6)}, cfg)
  assert choice["edge"] is False and choice["rates"] == [0.03]


def test_a_method_is_built_once_where_the_rate_is_traced_else_once_per_rate(finished, tmp_path):
  made = []

  def fixed(model, learning_rate):
    made.append(learning_rate)
    return train.supervised(model, objectives.fused, optax.sgd(learning_rate))

  splits = finished.fits[0]["splits"]
  search = Search(Compare(), Store(tmp_path), splits, None, lambda *_: None, {})
  joint = make_rows(Compare(methods=("joint",)), splits.modalities, "classification")[0][0]
  assert search.method(joint, Trial(0.01)) is search.method(joint, Trial(0.1))
  row = Row("fixed", methods.Entry(fixed, "own", "own", "own", "", ""), {}, source="per rate")
  assert search.method(row, Trial(0.01)) is not search.method(row, Trial(0.1))
  assert made[-1] == 0.1
