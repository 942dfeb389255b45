"""Running metrics: hand-computed numbers, scikit-learn as the oracle, padding, jit."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from scipy import stats

from mmfuse import metrics

BUILT = {
  "classification": metrics.classification,
  "multilabel": metrics.multi_label,
  "regression": metrics.regression,
}


def run(metric, logits, label, weight=None, batch=4):
  """Feeds rows in padded batches of one shape; padding holds what must never be read."""
  rows = len(label)
  weight = np.ones(rows, np.float32) if weight is None else np.asarray(weight, np.float32)
  logits, label = np.asarray(logits, np.float32), np.asarray(label)
  pad = -rows % batch
  filler = 10**6 if label.dtype.kind == "i" else np.nan
  logits = np.concatenate([logits, np.full((pad, *logits.shape[1:]), np.nan, np.float32)])
  label = np.concatenate([label, np.full((pad, *label.shape[1:]), filler, label.dtype)])
  weight = np.concatenate([weight, np.zeros(pad, np.float32)])
  update, acc = jax.jit(metric.update), metric.init()
  for i in range(0, rows + pad, batch):
    acc = update(acc, logits[i : i + batch], label[i : i + batch], weight[i : i + batch])
  return {k: float(v) for k, v in jax.jit(metric.compute)(acc).items()}


def test_classification_by_hand():
  # Labels 0 0 1 2, predictions 0 1 1 1: class 2 is never predicted, class 3 occurs nowhere.
  logits = np.eye(4)[[0, 1, 1, 1]] * 10
  out = run(metrics.classification(4), logits, np.array([0, 0, 1, 2]))
  assert out["accuracy"] == pytest.approx(2 / 4)
  assert out["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 0) / 3)
  assert out["macro_f1"] == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)
  norm = np.log(np.exp(10) + 3)
  # All four are sure of themselves and two are right.
  assert out["ece"] == pytest.approx(np.exp(10 - norm) - 0.5, rel=1e-5)
  assert out["nll"] == pytest.approx(((norm - 10) * 2 + norm * 2) / 4, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_classification_against_sklearn(seed):
  rng = np.random.default_rng(seed)
  logits, label = rng.normal(size=(29, 5)), rng.integers(0, 4, 29)  # class 4 is never a label
  weight = rng.integers(0, 3, 29)
  out = run(metrics.classification(5), logits, label, weight)
  predicted, used = logits.argmax(1), weight > 0
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scikit-learn warns of the class that is only predicted
    balanced = sk.balanced_accuracy_score(label, predicted, sample_weight=weight)
  assert out["accuracy"] == pytest.approx(sk.accuracy_score(label, predicted, sample_weight=weight))
  assert out["balanced_accuracy"] == pytest.approx(balanced)
  assert out["macro_f1"] == pytest.approx(
    sk.f1_score(
      label[used], predicted[used], average="macro", zero_division=0, sample_weight=weight[used]
    )
  )
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  repeated = np.repeat(np.arange(len(label)), weight)  # a weight is so many rows
  assert out["ece"] == pytest.approx(metrics.ece(p[repeated], label[repeated]), abs=1e-6)
  assert out["nll"] == pytest.approx(
    sk.log_loss(label, p, labels=range(5), sample_weight=weight), rel=1e-5
  )


def test_multilabel_by_hand():
  label = np.array([[1, 0, 0], [1, 1, 0]])
  logits = np.array([[1.0, 2.0, -1.0], [1.0, 3.0, 0.0]])  # a logit of exactly 0 predicts nothing
  out = run(metrics.multi_label(3), logits, label)
  assert out["accuracy"] == pytest.approx((1 + 1 / 2 + 1) / 3)
  assert out["micro_f1"] == pytest.approx(6 / 7)
  assert out["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # the empty label counts 0
  assert out["subset_accuracy"] == pytest.approx(1 / 2)


def test_multilabel_against_sklearn():
  rng = np.random.default_rng(2)
  logits, label = rng.normal(size=(21, 4)), rng.integers(0, 2, (21, 4))
  label[:, 3], logits[:, 3] = 0, -1.0
  out = run(metrics.multi_label(4), logits, label)
  said = logits > 0
  assert out["accuracy"] == pytest.approx((said == label).mean())
  assert out["subset_accuracy"] == pytest.approx(sk.accuracy_score(label, said))
  for kind in ("micro", "macro"):
    assert out[f"{kind}_f1"] == pytest.approx(
      sk.f1_score(label, said, average=kind, zero_division=0)
    )


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_regression_against_sklearn_and_scipy(offset):
  rng = np.random.default_rng(3)
  label = (rng.normal(size=(23, 2)) + offset).astype(np.float32)
  predicted = (label + 0.5 * rng.normal(size=(23, 2))).astype(np.float32)
  out = run(metrics.regression(2), predicted, label)
  label, predicted = label.astype(np.float64), predicted.astype(np.float64)
  assert out["r2"] == pytest.approx(sk.r2_score(label, predicted), abs=1e-4)
  assert out["mae"] == pytest.approx(sk.mean_absolute_error(label, predicted), rel=1e-5)
  assert out["rmse"] == pytest.approx(sk.root_mean_squared_error(label, predicted), rel=1e-5)
  each = [stats.pearsonr(label[:, r], predicted[:, r]).statistic for r in range(2)]
  assert out["pearson"] == pytest.approx(np.mean(each), abs=1e-4)


def test_regression_takes_flat_labels_and_weights():
  out = run(metrics.regression(), [[1.0], [2.0], [99.0]], np.array([1.0, 4.0, 0.0]), [1, 3, 0])
  assert out["mae"] == pytest.approx(6 / 4)
  assert out["rmse"] == pytest.approx(np.sqrt(12 / 4))
  assert out["r2"] == pytest.approx(1 - 12 / (1 * 2.25**2 + 3 * 0.75**2))


def test_regression_of_constants():
  label = np.full(7, 0.1, np.float32)  # 0.1 has no exact mean in float32
  assert run(metrics.regression(), label[:, None] + 1, label)["r2"] == 0.0
  assert run(metrics.regression(), label[:, None], label)["r2"] == 1.0
  varying = np.arange(7, dtype=np.float32)
  assert run(metrics.regression(), label[:, None], varying)["pearson"] == 0.0


@pytest.mark.parametrize("task", BUILT)
def test_no_rows_is_nan_and_batches_of_padding_change_nothing(task):
  metric = BUILT[task](2)
  logits = jnp.array([[0.3, -0.2], [0.1, 0.9]])
  label = {
    "classification": jnp.array([0, 1]),
    "multilabel": jnp.array([[1, 0], [1, 1]]),
    "regression": jnp.array([[0.0, 1.0], [2.0, 0.5]]),
  }[task]
  empty = metric.update(metric.init(), logits * jnp.nan, label, jnp.zeros(2))
  assert all(np.isnan(v) for v in metric.compute(empty).values())
  full = metric.update(metric.init(), logits, label, jnp.ones(2))
  more = metric.update(full, logits * jnp.nan, label, jnp.zeros(2))
  for name, value in metric.compute(full).items():
    assert np.isfinite(value), name
    assert metric.compute(more)[name] == value, name


@pytest.mark.parametrize("task", BUILT)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_counts_and_is_not_finite_makes_every_score_nan(task, bad):
  """argmax of NaN is class 0, and NaN > 0 is False: both would be right for some rows."""
  metric = BUILT[task](2)
  label = {"classification": [0, 0], "multilabel": [[0, 0], [0, 0]], "regression": [[0.0, 0.0]] * 2}
  logits = jnp.array([[0.3, -0.2], [bad, 0.9]])
  feed = lambda acc, weight: metric.update(acc, logits, jnp.array(label[task]), jnp.array(weight))
  with jax.debug_nans(np.isinf(bad)):  # the sums stay finite
    acc = feed(metric.init(), [1.0, 1.0])
    acc = feed(acc, [1.0, 0.0])
    fine = feed(metric.init(), [1.0, 0.0])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(acc))
  assert all(np.isnan(v) for v in metric.compute(acc).values())
  assert all(np.isfinite(v) for v in metric.compute(fine).values())


def test_accumulators_are_float32_whatever_comes_in():
  metric = metrics.classification(2)
  acc = metric.update(
    metric.init(), jnp.ones((2, 2), jnp.bfloat16), jnp.array([0, 1]), jnp.ones(2, jnp.bfloat16)
  )
  assert {x.dtype for x in jax.tree.leaves(acc)} == {jnp.dtype("float32")}


def test_sharded_rows_give_the_same_sums():
  mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  rng = np.random.default_rng(4)
  logits = rng.normal(size=(8, 3)).astype(np.float32)
  batch = (logits, rng.integers(0, 3, 8), np.ones(8, np.float32))
  metric = metrics.classification(3)
  update = jax.jit(metric.update)
  one = update(metric.init(), *batch)
  two = update(metric.init(), *(jax.device_put(x, rows) for x in batch))
  np.testing.assert_array_equal(one.confusion, two.confusion)
  np.testing.assert_allclose(one.nll, two.nll, rtol=1e-6)


@pytest.mark.parametrize("build", [metrics.classification, metrics.multi_label, metrics.regression])
def test_wrong_widths_are_refused(build):
  with pytest.raises(ValueError, match="positive whole number, got 0"):
    build(0)
  metric = build(3)
  with pytest.raises(ValueError, match=r"expects logits \[B, 3\].*got \[2, 4\]"):
    metric.update(metric.init(), jnp.zeros((2, 4)), jnp.zeros((2, 3), int), jnp.ones(2))


def test_regression_refuses_labels_of_another_width():
  metric = metrics.regression(2)
  with pytest.raises(ValueError, match="label has 1 outputs per row, the prediction 2"):
    metric.update(metric.init(), jnp.zeros((3, 2)), jnp.zeros(3), jnp.ones(3))
