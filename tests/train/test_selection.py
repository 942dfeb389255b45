"""Selecting over subsets of modalities, and views of a split: all in one compilation."""

import jax
import numpy as np
import pytest

from mmfuse import masks, metrics, tasks, train
from mmfuse.train import _evaluate, _selection

from ._problems import late_fusion, tiny

METHOD = train.supervised(late_fusion(2, "none", 0.0))
ACCURACY = tasks.metric("classification", 3)
FIT = {"epochs": 3, "batch_size": 8, "diagnose": False}


@pytest.fixture(scope="module")
def splits():
  return tiny()


@pytest.fixture(scope="module")
def by_mean(splits):
  before = _evaluate.map_views._cache_size()
  result = train.fit(METHOD, splits, select="mean/accuracy", loop="scan", **FIT)
  assert _evaluate.map_views._cache_size() == before + 1  # three epochs, every subset
  return result


def of_subsets(state, split):
  """{subset: accuracy on the rows with some of it}, by numpy."""
  out = {}
  for subset in masks.combinations(sorted(split.mask)):
    mask = {m: v & (m in subset) for m, v in split.mask.items()}
    rows = np.any([mask[m] for m in mask], axis=0)
    said = np.argmax(METHOD.predict(state, split.inputs, mask).logits, -1)
    out[subset] = float(np.mean((said == split.label)[rows]))
  return out


def test_the_mean_over_subsets_is_what_is_logged_and_selected_by(splits, by_mean):
  log = by_mean.logs[0]
  said = [e["validation"]["fused"] for e in log.history]
  assert log.best == max(s["mean/accuracy"] for s in said)
  assert log.best_loss == log.selected["validation"]["fused"]["mean/nll"]
  want = of_subsets(by_mean.state(), splits.validation)
  chosen = log.selected["validation"]["fused"]
  assert chosen["mean/accuracy"] == pytest.approx(np.mean(list(want.values())), abs=1e-6)
  assert chosen["worst/accuracy"] == pytest.approx(min(want.values()), abs=1e-6)
  assert chosen["worst/nll"] >= chosen["mean/nll"]
  assert by_mean.metric == "mean/accuracy"
  assert by_mean.validation[0]["fused"] == chosen["accuracy"]
  assert by_mean.records("x")[0]["metric"] == "accuracy"


def test_it_sees_what_plain_selection_sees_and_trains_the_same(splits, by_mean):
  plain = train.fit(METHOD, splits, loop="scan", **FIT)
  for a, b in zip(by_mean.logs[0].history, plain.logs[0].history):
    for head, scores in b["validation"].items():
      mine = {k: v for k, v in a["validation"][head].items() if "/" not in k}
      assert mine == pytest.approx(scores)
    assert a["loss/fused"] == b["loss/fused"]


def test_the_python_loop_and_stacked_seeds_say_the_same(splits, by_mean):
  looped = train.fit(METHOD, splits, select="mean/accuracy", loop="python", **FIT)
  assert looped.logs[0].best == pytest.approx(by_mean.logs[0].best, abs=1e-6)
  both = train.fit(METHOD, splits, select="mean/accuracy", seeds=2, together=True, **FIT)
  assert both.logs[0].best == pytest.approx(by_mean.logs[0].best, abs=1e-6)


def test_selecting_by_the_worst_subset_or_by_the_head_of_a_modality(splits):
  worst = train.fit(METHOD, splits, select="worst/accuracy", loop="scan", **FIT).logs[0]
  assert worst.best == max(e["validation"]["fused"]["worst/accuracy"] for e in worst.history)
  head = train.fit(METHOD, splits, select="accuracy@b", loop="scan", **FIT).logs[0]
  assert head.best == max(e["validation"]["b"]["accuracy"] for e in head.history)


@pytest.mark.parametrize(
  "select, message",
  [
    ("mean/f", r"cannot select by 'mean/f'; this task has: accuracy"),
    ("accuracy@c", r"cannot select by 'accuracy@c'; heads: a, b, fused"),
  ],
)
def test_what_cannot_be_selected_by_is_said(splits, select, message):
  with pytest.raises(ValueError, match=message):
    train.fit(METHOD, splits, select=select, loop="scan", **FIT)


def test_a_head_without_rows_and_too_many_subsets_are_refused():
  scores = {"fused": {"accuracy": 0.5}, "b": {"accuracy": None}}
  with pytest.raises(ValueError, match="no validation row has b"):
    _selection.judge("accuracy@b", scores, ACCURACY, "nll")
  with pytest.raises(ValueError, match="no fused logits"):
    _selection.judge("accuracy", {"b": {"accuracy": 1.0}}, ACCURACY, "nll")
  many = tiny().validation.replace(mask={str(i): np.ones(10, bool) for i in range(7)})
  with pytest.raises(ValueError, match="at most 6 modalities are scored, these are 7"):
    _selection.check("mean/accuracy", many)


def test_a_subset_that_no_row_has_is_left_out():
  split = tiny().validation
  split = split.replace(mask={**split.mask, "a": ~split.mask["b"]})  # never together
  assert _selection.subsets_of(split) == [("a",), ("b",)]


def test_all_subsets_and_nine_tables_take_one_compilation(splits):
  split = splits.train
  state = train.initial(METHOD, jax.random.key(0), train.to_batch(split))
  tables = [masks.missing_table(0, 24, r / 10, ("a", "b")) for r in range(1, 10)]
  views = [train.subset_view(split, s, covered=True) for s in masks.combinations("ab")]
  views += [train.View(masks.without(split.mask, t)) for t in tables]
  before = _evaluate.map_views._cache_size()
  found = train.evaluate_views(METHOD, state, split, views, metric=ACCURACY, batch_size=7)
  assert _evaluate.map_views._cache_size() == before + 1
  want = of_subsets(state, split)
  for subset, scores in zip(want, found):
    assert scores["fused"]["accuracy"] == pytest.approx(want[subset], abs=1e-6)
  for (mask, _), scores in zip(views[3:], found[3:]):
    logits = METHOD.predict(state, split.inputs, mask).logits
    right = float(np.mean(np.argmax(logits, -1) == split.label))
    assert scores["fused"]["accuracy"] == pytest.approx(right, abs=1e-6)
  assert len({s["fused"]["accuracy"] for s in found}) > 3


def test_equal_views_are_scored_once(splits):
  view = train.View(splits.validation.mask)
  stacked, place = _evaluate.stack_views(splits.validation, [view, view._replace(counts=None)])
  assert place == [0, 0] and stacked.counts.shape[0] == 1
  assert isinstance(ACCURACY, metrics.Metric)
