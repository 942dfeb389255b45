"""The search sees no test row, spends the same on every row, and chooses by one rule."""

import collections

import jax
import numpy as np
import optax
import pytest

from mmfuse import methods, objectives, train
from mmfuse.protocol import Compare, Search
from mmfuse.protocol._rows import Row, Trial, make_rows
from mmfuse.protocol._store import Store, read_json
from mmfuse.protocol._tried import Diverged

from ._helpers import records

RATES = (0.01, 0.03, 0.1)


def test_no_fit_is_given_the_test_rows(finished):
  assert finished.fits and all(f["splits"].test is None for f in finished.fits)
  for fit in finished.fits:
    held = {*fit["splits"].train.index, *fit["splits"].validation.index}
    assert not held & {r for r in range(80) if r // 2 % 5 == 4}


def test_a_search_refuses_test_rows(finished, tmp_path):
  splits = finished.fits[0]["splits"]
  whole = splits.with_parts(test=splits.validation)
  with pytest.raises(ValueError, match="must not hold test rows"):
    Search(Compare(), Store(tmp_path), whole, None, lambda *_: None, {})


def test_no_run_is_trained_twice_and_further_seeds_only_at_the_chosen_rate(finished):
  trained = [f["checkpoint_dir"] for f in finished.fits if "checkpoint_dir" in f]
  assert len(finished.fits) - len(trained) == 1  # the estimate
  tried = {r["method"]: len(r["tuning"]["rates"]) for r in records(finished.run)}
  assert len(trained) == len(set(trained)) == sum(2 * n + 1 for n in tried.values())
  assert len({f["batch_size"] for f in finished.fits}) == 1
  assert {f["epochs"] for f in finished.fits} == {2}


def test_every_row_spends_the_same_and_one_more_trial_for_each_step_outwards(finished):
  for r in records(finished.run):
    rates = r["tuning"]["rates"]
    assert set(RATES) <= set(rates) and len(rates) <= 5
    assert (
      r["gradient_evaluations"] == (len(rates) * 2 + 1) * 2 * 48
    )  # every training row, every epoch
    seen = [(t["learning_rate"], t["seed"]) for t in r["tuning"]["trials"]]
    assert seen[:6] == [(rate, seed) for rate in RATES for seed in (0, 1)]
    assert sorted({rate for rate, _ in seen}) == rates and len(seen) == 2 * len(rates)


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
    trials, rates = r["tuning"]["trials"], r["tuning"]["rates"]
    mean = lambda field, rate, trials=trials: np.mean(
      [t[field] for t in trials if t["learning_rate"] == rate]
    )
    order = sorted(rates, key=lambda x: (-mean("validation", x), mean("validation_loss", x), x))
    assert r["learning_rate"] == order[0]
    tied = [x for x in rates if mean("validation", x) == mean("validation", order[0])]
    assert r["tuning"]["edge"] == all(x in (rates[0], rates[-1]) for x in tied)
    means = [mean("validation", x) for x in rates]
    assert r["tuning"]["spread"] == pytest.approx(max(means) - min(means))


def test_a_choice_is_written_beside_its_runs(finished):
  choice = read_json(finished.run / "runs" / "joint" / "choice.json")
  joint = records(finished.run)[0]
  assert choice["learning_rate"] == joint["learning_rate"]
  assert choice["config"] == joint["config_hash"]


def _log(seed, best):
  """`best` is a score, or (score, loss)."""
  log = train.RunLog(seed, None)
  log.best, log.best_loss = best if isinstance(best, tuple) else (best, 1.0)
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


FURTHER = (0.01 / 9, 0.01 / 3, *RATES, 0.3, 0.9)


def _at(*means, rates=RATES):
  return {Trial(float(f"{r:.6g}")): (v, v) for r, v in zip(rates, means)}


@pytest.mark.parametrize(
  "scores, rate, edge, tried",
  [
    (_at(0.5, 0.9, 0.7), 0.03, False, 3),
    (_at(0.4, 0.9, 0.9), 0.03, False, 3),  # a tie goes to the smaller rate, and is inside
    (_at(0.9, 0.9, 0.7), 0.01, False, 3),  # the inner one is as good: nothing lies beyond
    (_at(0.5, 0.7, 0.9, 0.8, rates=(*RATES, 0.3)), 0.1, False, 4),
    (_at(0.5, 0.7, 0.8, 0.9, 0.85, rates=(*RATES, 0.3, 0.9)), 0.3, False, 5),
    (_at(0.5, 0.7, 0.8, 0.9, 0.95, rates=(*RATES, 0.3, 0.9)), 0.9, True, 5),  # at most twice
    (_at(0.7, 0.8, 0.9, 0.5, 0.4, rates=FURTHER[:5]), 0.01, False, 4),
    (_at(0.9, 0.95, 0.9, 0.5, 0.4, rates=FURTHER[:5]), 0.01 / 3, False, 5),
  ],
)
def test_the_grid_reaches_outwards_until_the_best_is_inside(
  finished, tmp_path, scores, rate, edge, tried
):
  choice, asked = _choose(finished, tmp_path, scores)
  assert choice["learning_rate"] == pytest.approx(rate, rel=1e-5) and choice["edge"] is edge
  assert len(choice["rates"]) == tried and len(choice["trials"]) == 2 * tried
  final = collections.Counter(t.rate for s, t in asked if s == 2)
  assert final == {choice["learning_rate"]: 1}  # seed 2 runs at the chosen rate only


def test_ties_go_to_the_smaller_loss_and_then_to_the_smaller_rate(finished, tmp_path):
  pair = lambda score, loss: ((score, loss), (score, loss))
  scores = {Trial(0.01): pair(0.9, 0.5), Trial(0.03): pair(0.9, 0.4), Trial(0.1): pair(0.9, 0.3)}
  choice, _ = _choose(finished, tmp_path, scores)
  assert choice["learning_rate"] == 0.1 and choice["edge"] is False  # .03 scores as well
  scores[Trial(0.1)] = pair(0.9, 0.4)
  assert _choose(finished, tmp_path, scores)[0]["learning_rate"] == 0.03
  scores[Trial(0.01)] = pair(0.8999, 0.1)  # no rounding of scores
  assert _choose(finished, tmp_path, scores)[0]["learning_rate"] == 0.03


def test_named_rates_are_kept_as_they_are(finished, tmp_path):
  cfg = Compare(seeds=2, rates=(0.2, 0.02))
  choice, _ = _choose(finished, tmp_path, {Trial(0.02): (0.5, 0.5), Trial(0.2): (0.9, 0.9)}, cfg)
  assert choice["rates"] == [0.02, 0.2] and choice["edge"] is True


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
  with pytest.raises(Diverged, match=r"every trial diverged .* at learning rates 0.0\d"):
    _choose(finished, tmp_path, {Trial(r): (None, None) for r in RATES})


def test_the_edge_of_a_hyper_parameter_is_marked_too(finished, tmp_path):
  cfg = Compare(seeds=2, tune=9)
  trials = [Trial(r, (("lam", v),)) for v in (0.3, 1.0, 3.0) for r in RATES]

  def best(trial):
    beyond = Trial(0.3, (("lam", 1.0),))
    return {t: (0.9, 0.9) if t == trial else (0.5, 0.5) for t in [*trials, beyond]}

  for trial, edge in (
    (Trial(0.03, (("lam", 1.0),)), False),
    (Trial(0.03, (("lam", 3.0),)), True),
    (Trial(0.1, (("lam", 1.0),)), False),  # one rate further on it is inside
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
  row = Row("fixed", methods.of_rate(fixed), {}, source="per rate")
  assert search.method(row, Trial(0.01)) is not search.method(row, Trial(0.1))
  assert made[-1] == 0.1


def _groups(params):
  group = lambda m: "a" if m == "a" else "rest"
  return {m: jax.tree.map(lambda _, g=group(m): g, p) for m, p in params.items()}


@pytest.mark.parametrize(
  "tx",
  [
    lambda rate: train.sgd(0.1 * rate),  # scaled
    lambda rate: optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(rate, 0.0, 9)),
    lambda rate: optax.partition({"a": train.sgd(rate), "rest": train.sgd(2 * rate)}, _groups),
  ],
  ids=["scaled", "schedule", "groups"],
)
def test_a_rate_that_means_something_else_is_not_written_over(finished, tmp_path, tx):
  def build(model, learning_rate):
    return train.supervised(model, objectives.fused, tx(learning_rate))

  splits = finished.fits[0]["splits"]
  search = Search(Compare(), Store(tmp_path), splits, None, lambda *_: None, {})
  row = Row("own", methods.of_rate(build), {}, source=str(tx))
  assert search.method(row, Trial(0.01)) is not search.method(row, Trial(0.1))
  assert not search.traced_rate(row, Trial(0.1))
