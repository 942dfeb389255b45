"""Calibration and ranking: by hand, then against scikit-learn, ties included."""

import numpy as np
import pytest
import sklearn.metrics as sk

from mmfuse import metrics


def test_ece_by_hand():
  p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
  label = [0, 1, 1, 1]  # right, wrong, right, wrong (a tie goes to the lower class)
  # 5 bins of width .2: (.8, 1]: .9; (.6, .8]: .8 and .7; (.4, .6]: .5.
  expected = (abs(1 - 0.9) + abs((0 + 1) - (0.8 + 0.7)) + abs(0 - 0.5)) / 4
  assert metrics.ece(p, label, bins=5) == pytest.approx(expected)


def test_ece_bins_are_closed_on_the_right():
  # .8 and .9 must not share a bin of 10: over- and under-confidence would cancel.
  p = np.array([[0.8, 0.2], [0.85, 0.15]])
  assert metrics.ece(p, [0, 1], bins=10) == pytest.approx((0.2 + 0.85) / 2)


def test_ece_of_a_calibrated_prediction_is_zero():
  assert metrics.ece(np.tile([0.75, 0.25], (4, 1)), [0, 0, 0, 1]) == pytest.approx(0)
  assert metrics.ece(np.eye(3), [0, 1, 2]) == 0


def test_auroc_by_hand():
  # Pairs (positive, negative): 3 > 1, 3 > 2, 2 > 1, 2 = 2.
  assert metrics.auroc([1, 2, 2, 3], [0, 0, 1, 1]) == pytest.approx(3.5 / 4)


def test_average_precision_by_hand():
  # Thresholds 4 (P 1, R 1/2), 3 (P 1/2, R 1/2), 2: tied rows (P 2/4, R 1).
  assert metrics.average_precision([4, 3, 2, 2], [1, 0, 1, 0]) == pytest.approx(0.5 + 0.5 * 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_ranking_against_sklearn(seed):
  rng = np.random.default_rng(seed)
  score, label = rng.integers(0, 6, 40) / 5, rng.integers(0, 2, 40)
  assert metrics.auroc(score, label) == pytest.approx(sk.roc_auc_score(label, score))
  assert metrics.average_precision(score, label) == pytest.approx(
    sk.average_precision_score(label, score)
  )
  p, classes = rng.dirichlet(np.ones(3), 40), rng.integers(0, 3, 40)
  assert metrics.auroc(p, classes) == pytest.approx(
    sk.roc_auc_score(classes, p, multi_class="ovr", average="macro")
  )
  assert metrics.average_precision(p, classes) == pytest.approx(
    sk.average_precision_score(classes, p, average="macro")
  )
  many = rng.integers(0, 2, (40, 3))
  assert metrics.auroc(p, many) == pytest.approx(sk.roc_auc_score(many, p, average="macro"))


def test_columns_of_one_kind_are_left_out():
  score = np.array([[0.1, 0.9], [0.8, 0.2]])
  label = np.array([[0, 1], [1, 1]])
  assert metrics.auroc(score, label) == 1.0
  assert metrics.average_precision(score, np.array([[0, 0], [1, 0]])) == 1.0


def test_monotone_scores_rank_alike():
  rng = np.random.default_rng(9)
  score, label = rng.normal(size=30), rng.integers(0, 2, 30)
  assert metrics.auroc(np.exp(score), label) == metrics.auroc(score, label)
  assert metrics.auroc(-score, label) == pytest.approx(1 - metrics.auroc(score, label))


@pytest.mark.parametrize(
  ("call", "sentence"),
  [
    (lambda: metrics.auroc([1, 2], [1]), "score has 2 rows, label has 1"),
    (lambda: metrics.auroc([], []), "at least one row"),
    (lambda: metrics.auroc([1, np.nan], [0, 1]), "must be finite, row 1 is not"),
    (lambda: metrics.auroc([1, 2], [1, 1]), "needs a positive and a negative row"),
    (lambda: metrics.auroc([1, 2], [0, 2]), r"labels of 0 and 1, got 0\.\.2"),
    (lambda: metrics.auroc([1, 2], [[0, 1], [1, 0]]), r"got \[2\] and \[2, 2\]"),
    (lambda: metrics.average_precision([1, 2], [0, 0]), "needs a positive row"),
    (lambda: metrics.ece([[3.0, -1.0]], [0]), "apply softmax"),
    (lambda: metrics.ece([0.5], [0]), r"probabilities \[B, C\]"),
    (lambda: metrics.ece([[0.5, 0.5]], [0], bins=0), "bins must be at least 1, got 0"),
  ],
)
def test_bad_input_says_what_was_there(call, sentence):
  with pytest.raises(ValueError, match=sentence):
    call()
