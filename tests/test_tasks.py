"""The table of tasks: what each is judged by, its passport, and the constant predictor."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import metrics, names, tasks
from mmfuse.core import Batch, Outputs
from mmfuse.tree import FUSED

UNHEADED = (names.GENERATION, names.RETRIEVAL)  # no logits are judged


def test_every_name_has_a_row_with_passports():
  assert set(tasks.TASKS) == set(names.TASKS)
  assert [tasks.get(t).primary for t in names.TASKS] == [
    "accuracy",
    "macro_f1",
    "r2",
    "elbo",
    "map_at_50",
    "miou",
  ]
  for name, task in tasks.TASKS.items():
    scores = {s.name: s for s in tasks.metric(name, 3).scores}
    assert scores[task.primary].larger_is_better
    assert task.loss is None or not scores[task.loss].larger_is_better
    assert name in UNHEADED or all(metrics.score(n) == s for n, s in scores.items())
    assert tasks.metric(name, 3) is tasks.metric(name, 3)
  with pytest.raises(ValueError, match=r"unknown task 'regresion'; closest: regression"):
    tasks.metric("regresion", 1)


def _batch(label, mask, weight=None, labelled=None) -> Batch:
  rows = len(label)
  weight = np.ones(rows, np.float32) if weight is None else np.asarray(weight, np.float32)
  label = np.asarray(label)
  label = label.astype(np.float32 if label.dtype.kind == "f" else np.int32)
  return Batch({}, label, mask, weight, np.arange(rows, dtype=np.int32), {}, labelled)


def test_a_metric_gives_what_it_says_for_every_head():
  for name in (n for n in names.TASKS if n not in UNHEADED):
    metric = tasks.metric(name, 2)
    logits = jnp.array([[0.5, 1.0], [2.0, -1.0]])
    outputs = Outputs(logits, {"a": logits[:, ::-1]})
    label = {"classification": np.array([1, 0]), "multilabel": np.array([[1, 0], [0, 1]])}
    label = label.get(name, np.array([[0.5, 1.0], [2.0, 0.0]], np.float32))
    if name == names.SEGMENTATION:  # a row is one place here
      label = np.array([[[1]], [[0]]])
      outputs = Outputs(logits[:, None, None], {"a": logits[:, None, None, ::-1]})
    batch = _batch(label, {"a": np.array([True, False])})
    found = metric.compute(metric.update(metric.init(outputs), outputs, batch))
    assert set(found) == {FUSED, "a"}
    assert all(set(v) == {s.name for s in metric.scores} for v in found.values())


def test_heads_are_judged_in_the_rows_that_have_them_and_a_label():
  metric = tasks.metric("classification", 2)
  right = jnp.array([[0.0, 9.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
  outputs = Outputs(right, {"a": right})
  batch = _batch([1, 1, 0, 1], {"a": np.array([True, False, True, True])}, [1, 1, 1, 0])
  found = metric.compute(metric.update(metric.init(outputs), outputs, batch))
  assert found[FUSED]["accuracy"] == pytest.approx(1 / 3)
  assert found["a"]["accuracy"] == pytest.approx(1 / 2)
  batch = batch._replace(labelled=np.array([True, True, False, True]))
  found = metric.compute(metric.update(metric.init(outputs), outputs, batch))
  assert found[FUSED]["accuracy"] == pytest.approx(1 / 2) and found["a"]["accuracy"] == 1.0


def test_a_mean_over_rows_needs_no_label():
  metric = metrics.row_mean("elbo", words="evidence lower bound, nats")
  outputs = Outputs(None, aux={"elbo": jnp.array([-1.0, -5.0, jnp.nan])})
  batch = _batch([0, 0, 0], {}, [1, 3, 0])
  feed = lambda sums, b: metric.update(sums, outputs, b)
  sums = feed(feed(metric.init(outputs), batch), batch)
  assert metric.compute(sums)[FUSED]["elbo"] == pytest.approx(-4.0)
  assert metric.scores[0].larger_is_better and not metric.scores[0].share
  nothing = feed(metric.init(outputs), batch._replace(weight=np.zeros(3, np.float32)))
  assert np.isnan(metric.compute(nothing)[FUSED]["elbo"])
  broken = feed(metric.init(outputs), batch._replace(weight=np.ones(3, np.float32)))
  assert np.isnan(metric.compute(broken)[FUSED]["elbo"])


def test_majority():
  logits = tasks.constant([2, 2, 0], "classification", 4)
  np.testing.assert_allclose(np.exp(logits), np.array([2, 1, 3, 1]) / 7, rtol=1e-6)
  assert logits.dtype == np.float32
  labels = [[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 0]]
  logits = tasks.constant(labels, "multilabel", 3)
  np.testing.assert_allclose(logits, np.log([5 / 1, 3 / 3, 2 / 4]), rtol=1e-6)
  np.testing.assert_allclose(tasks.constant([1.0, 4.0], "regression", 1), [2.5])
  np.testing.assert_allclose(tasks.constant([[1.0, 0], [2, 4]], "regression", 2), [1.5, 2])


def test_majority_scores_the_share_of_the_majority_class():
  label = np.array([0, 1, 1, 1, 2, 1])
  constant = np.tile(tasks.constant(label, "classification", 3), (6, 1))
  metric, outputs = tasks.metric("classification", 3), Outputs(constant)
  sums = metric.update(metric.init(outputs), outputs, _batch(label, {}))
  assert metric.compute(sums)[FUSED]["accuracy"] == pytest.approx(4 / 6)


def test_majority_refuses_bad_labels():
  with pytest.raises(ValueError, match="at least one training row"):
    tasks.constant([], "classification", 3)
  with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, got 0\.\.3"):
    tasks.constant([0, 3], "classification", 3)
  with pytest.raises(ValueError, match="labels have 2 columns, expected 1"):
    tasks.constant([[0.0, 3.0]], "regression", 1)
