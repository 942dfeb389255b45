"""`linear`: the optimum is scikit-learn's on the same columns; what validates best is chosen."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from mmfuse.core import Unavailable
from mmfuse.data._table import Split
from mmfuse.protocol import _linear


@pytest.fixture(autouse=True)
def _to_the_end(monkeypatch):
  monkeypatch.setattr(_linear, "TOLERANCE", 1e-7)


def split_of(label, mask=None, weight=None, labelled=None, **inputs):
  rows = len(label)
  present = {m: np.ones(rows, bool) for m in inputs} | (mask or {})
  inputs = {m: np.asarray(x, np.float32) for m, x in inputs.items()}
  return Split(
    inputs, np.asarray(label), present, np.arange(rows, dtype=np.int32), None, weight, labelled
  )


def drawn(rows, columns, classes=3, seed=0):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, classes, rows)
  return label, rng.normal(size=(rows, columns)) + 0.7 * rng.normal(size=(classes, columns))[label]


def fit(split, C=0.1, task="classification"):
  rows = _linear.usable(split, None)
  (found,) = _linear.fits(split, tuple(split.inputs), rows, task, (C,))
  return found


def standard(x):
  return (x - x.mean(0)) / x.std(0)


def probabilities(found, split, classes):
  return np.exp(found.logits(split, np.arange(len(split.label)), classes))


@pytest.mark.parametrize("columns", [5, 90])  # fewer than the 60 rows, and more
@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_scikit_learn_on_the_standardised_columns(columns, classes):
  label, x = drawn(60, columns, classes)
  split = split_of(label, a=x)
  found = fit(split)
  oracle = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(standard(x), label)
  np.testing.assert_allclose(
    probabilities(found, split, classes), oracle.predict_proba(standard(x)), atol=1e-4
  )
  assert found.converged and found.weights.shape == (columns, classes)


@pytest.mark.parametrize("columns", [5, 90])
def test_a_ridge_is_scikit_learn_s(columns):
  _, x = drawn(60, columns)
  label = np.stack([x[:, 0] * 2, x[:, 1] - x[:, 2]], 1).astype(np.float32)
  split = split_of(label, a=x)
  oracle = Ridge(alpha=10.0).fit(standard(x), label).predict(standard(x))
  made = fit(split, 0.1, "regression").logits(split, np.arange(60), 2)
  np.testing.assert_allclose(made, oracle, atol=1e-4)
  one = split_of(label[:, 0], a=x)
  np.testing.assert_allclose(
    fit(one, 0.1, "regression").logits(one, np.arange(60), 1), oracle[:, :1], atol=1e-4
  )


def test_more_columns_than_rows_are_as_many_as_rows_and_nothing_is_lost():
  x = np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
  x[7] = x[6]  # a row that adds no direction
  z, back = _linear.rotated(x)
  assert z.shape == (8, 7)
  v = np.arange(7.0)[:, None]
  np.testing.assert_allclose(x @ back(v), z @ v, atol=1e-4)
  np.testing.assert_allclose(np.linalg.norm(back(v)), np.linalg.norm(v), rtol=1e-5)


def test_many_labels_are_one_regression_each_and_a_constant_one_stays_what_it_is():
  label, x = drawn(60, 4)
  labels = np.stack([label == 0, label == 1, np.ones(60)], 1).astype(np.int32)
  split = split_of(labels, a=x)
  made = fit(split, 0.1, "multilabel").logits(split, np.arange(60), 3)
  oracle = LogisticRegression(C=0.1, tol=1e-8).fit(standard(x), labels[:, 1])
  np.testing.assert_allclose(made[:, 1], oracle.decision_function(standard(x)), atol=1e-3)
  assert made[:, 2].min() > 4 and np.isfinite(made).all()


def test_weights_are_examples_and_only_their_ratios_count():
  label, x = drawn(60, 4)
  weight = np.random.default_rng(2).uniform(0.2, 3, 60).astype(np.float32)
  found, scaled = (fit(split_of(label, a=x, weight=w)) for w in (weight, 100 * weight))
  np.testing.assert_allclose(found.weights, scaled.weights, rtol=1e-3, atol=1e-4)
  plain = fit(split_of(label, a=x))
  assert np.abs(found.weights - plain.weights).max() > 1e-2
  mean = np.average(x, axis=0, weights=weight)
  z = (x - mean) / np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
  oracle = LogisticRegression(C=0.1, tol=1e-8).fit(z, label, sample_weight=weight / weight.mean())
  np.testing.assert_allclose(
    probabilities(found, split_of(label, a=x), 3), oracle.predict_proba(z), atol=1e-4
  )


def test_rows_without_a_label_and_of_weight_0_are_left_out():
  label, x = drawn(60, 4)
  known = np.arange(60) % 3 > 0
  few = fit(split_of(label[known], a=x[known]))
  garbage = np.where(known[:, None], x, 1e6)
  hidden = split_of(np.where(known, label, 0), a=garbage, labelled=known)
  np.testing.assert_array_equal(fit(hidden).weights, few.weights)
  weightless = split_of(label, a=garbage, weight=known.astype(np.float32))
  np.testing.assert_array_equal(fit(weightless).weights, few.weights)
  present = split_of(label, a=x, mask={"a": ~known}, labelled=known)
  assert len(_linear.usable(present, "a")) == 0 and len(_linear.usable(present, None)) == 40


def test_a_class_that_training_lacks_is_never_said_and_has_a_finite_likelihood():
  label, x = drawn(60, 4)
  split = split_of(label * 2, a=x)  # 0, 2, 4 of six
  made = fit(split).logits(split, np.arange(60), 6)
  assert set(made.argmax(1)) <= {0, 2, 4}
  np.testing.assert_allclose(made[:, [1, 3, 5]], -np.log(66.0), rtol=1e-6)
  alone = split_of(np.full(60, 1), a=x)
  assert set(fit(alone).logits(alone, np.arange(60), 3).argmax(1)) == {1}


def test_constant_inputs_give_the_frequencies():
  split = split_of([0, 1, 1, 1], a=np.ones((4, 3)))
  np.testing.assert_allclose(probabilities(fit(split), split, 2)[0], [0.25, 0.75], atol=1e-3)
  empty = split_of([0, 1, 1, 1], a=np.ones((4, 3)), mask={"a": np.zeros(4, bool)})
  np.testing.assert_allclose(probabilities(fit(empty), empty, 2)[0], [0.25, 0.75], atol=1e-3)


def test_ties_go_to_the_smaller_penalty_inverse_and_the_best_is_chosen():
  label, x = drawn(40, 3)
  split, rows = split_of(label, a=x), np.arange(40)
  seen = []
  judge = lambda found: (seen.append(found.C), float(found.C >= 0.1))[1]
  best, tried = _linear.choose(split, ("a",), rows, "classification", judge)
  assert (seen, best.C, tried) == (list(_linear.GRID), 0.1, 40)
  first, _ = _linear.choose(split, ("a",), rows, "classification", lambda found: -np.inf)
  assert first.C == 1e-4


def test_the_search_ends_after_two_that_are_worse():
  label, x = drawn(40, 3)
  seen = []
  scores = dict(zip(_linear.GRID, (0.1, 0.5, 0.4, 0.5, 0.3, 0.9, 0.9)))
  judge = lambda found: (seen.append(found.C), scores[found.C])[1]
  best, _ = _linear.choose(split_of(label, a=x), ("a",), np.arange(40), "classification", judge)
  assert seen == [1e-4, 1e-3, 0.01, 0.1, 1.0] and best.C == 1e-3


def test_many_rows_choose_with_some_and_fit_all_that_fit(monkeypatch):
  label, x = drawn(60, 4)
  split, rows = split_of(label, a=x), np.arange(60)
  judge = lambda found: -abs(found.C - 1)
  monkeypatch.setattr(_linear, "CHOICE_ROWS", 30)
  best, tried = _linear.choose(split, ("a",), rows, "classification", judge)
  assert (tried, best.rows, best.C) == (30, 60, 1.0)
  np.testing.assert_array_equal(best.weights, fit(split, 1.0).weights)
  monkeypatch.setattr(_linear, "MOST_CELLS", 4 * 40)
  assert _linear.choose(split, ("a",), rows, "classification", judge)[0].rows == 40
  monkeypatch.setattr(_linear, "MOST_COLUMNS", 3)
  with pytest.raises(Unavailable, match="4 columns, a linear baseline takes at most 3"):
    _linear.choose(split, ("a",), rows, "classification", judge)


def test_a_fit_that_does_not_converge_says_so(monkeypatch):
  monkeypatch.setattr(_linear, "ITERATIONS", 2)
  label, x = drawn(60, 4)
  assert not fit(split_of(label, a=x), C=100.0).converged
