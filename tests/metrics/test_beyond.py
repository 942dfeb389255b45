"""Scores of shifted and foreign rows, of members and of what adapts, by hand."""

import numpy as np
import pytest

from mmfuse import data, metrics
from mmfuse.core import Outputs, Unavailable

RNG = np.random.default_rng(0)


def part(label, kind=None, **more):
  """A part of these labels; its inputs are for nobody."""
  rows = len(label)
  arrays = {"a": RNG.normal(size=(rows + 3, 2)), "label": np.r_[label, label[:3]]}
  arrays["split"] = np.repeat(["shifted", "train", "validation", "test"], [rows, 1, 1, 1])
  if kind is not None:
    arrays["truth_kind"] = np.r_[kind, kind[:3]]
  found = data.from_arrays({**arrays, **more}).parts["shifted"]
  return found


def logits(p):
  return np.log(np.asarray(p, np.float64))


def test_under_shift_judges_the_prediction_and_the_mean_of_the_members():
  label = np.asarray([0, 0, 1, 1])
  members = logits([[[0.8, 0.2], [0.6, 0.4]], [[0.2, 0.8]] * 2, [[0.5, 0.5]] * 2, [[0.1, 0.9]] * 2])
  votes = logits([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
  given = part(label, kind=np.asarray([0, 0, 4, 4]))
  outputs = {"shifted": Outputs(votes, aux={"members": members})}
  score = metrics.under_shift()
  found = score.compute(outputs, {"shifted": given})
  p = np.asarray([0.7, 0.2, 0.5, 0.9])
  assert found["shifted_accuracy"] == 0.75 and found["shifted_accuracy/4"] == 1.0
  assert found["shifted_nll"] == pytest.approx(-np.log(p).mean())
  assert found["shifted_nll/0"] == pytest.approx(-np.log(p[:2]).mean())
  means = np.exp(members).mean(1)
  assert found["shifted_ece"] == pytest.approx(metrics.ece(means, label))
  assert len(found) == 9 and score.reads == ("shifted",)
  plain = score.compute({"shifted": Outputs(votes)}, {"shifted": given})
  assert plain["shifted_nll"] == pytest.approx(-np.log([0.9, 0.1, 0.9, 0.9]).mean())
  unknown = given.replace(labelled=np.asarray([True, False, True, True]))
  assert score.compute(outputs, {"shifted": unknown})["shifted_accuracy"] == 1.0


def test_members_disagree_in_pairs():
  said = np.asarray([[0, 0, 0], [0, 1, 1], [1, 1, 2], [2, 2, 2]])  # [rows, members]
  outputs = {"test": Outputs(None, aux={"members": np.eye(3)[said]})}
  given = {"test": part(np.asarray([0, 1, 1, 0]), kind=np.asarray([1, 1, 2, 2]))}
  found = metrics.disagreement().compute(outputs, given)
  assert found["disagreement"] == pytest.approx(4 / 12)
  assert found["member_accuracy"] == pytest.approx(7 / 12)
  assert found["disagreement/2"] == pytest.approx(2 / 6)
  elsewhere = metrics.disagreement("shifted")
  assert [s.name for s in elsewhere.scores] == ["shifted_disagreement", "shifted_member_accuracy"]
  with pytest.raises(Unavailable, match="the method has none"):
    metrics.disagreement().compute({"test": Outputs(np.eye(3)[said[:, 0]])}, given)
  one = {"test": Outputs(None, aux={"members": np.eye(3)[said[:, :1]]})}
  assert metrics.disagreement().compute(one, given)["disagreement"] == 0.0


def test_auroc_stands_for_every_kind_of_foreign_rows():
  sure, unsure = [[0.99, 0.01]], [[0.5, 0.5]]
  outputs = {
    "test": Outputs(logits(sure * 3 + unsure)),
    "ood": Outputs(logits(sure * 2 + unsure * 2)),
  }
  given = {"ood": part(np.arange(4) % 2, kind=np.asarray([0, 0, 1, 1]))}
  found = metrics.ood_auroc().compute(outputs, given)
  assert found["ood_auroc/0"] == pytest.approx(0.375) and found["ood_auroc/1"] == pytest.approx(
    0.875
  )
  assert found["ood_auroc"] == pytest.approx(0.625)


def shifted(rows=200):
  """(labels, kinds, features): the first column tells the label in kind 0, the last one in kind 1."""
  label, kind = np.arange(rows) % 2, np.repeat([0, 1], rows // 2)
  x = RNG.normal(size=(rows, 3))
  x[:, 0] = np.where(kind == 0, 3 * (2 * label - 1), x[:, 0])
  x[:, 2] += np.where(kind == 1, label, 0)
  return label, kind, x


def test_adaptation_fits_a_few_rows_of_each_kind_and_judges_the_others():
  label, kind, x = shifted()
  score = metrics.adaptation(40, draws=3)
  outputs = Outputs(None, aux={"latent": x})
  given = {"shifted": part(label, kind=kind)}
  found = score.compute({"shifted": outputs}, given)
  assert found["adapted_accuracy/0"] == 1.0 and 0.5 < found["adapted_accuracy/1"] < 0.95
  mean = np.mean([found["adapted_accuracy/0"], found["adapted_accuracy/1"]])
  assert found["adapted_accuracy"] == pytest.approx(mean)
  assert score.compute({"shifted": outputs}, given) == found  # the draws are fixed
  apart = Outputs(None, features={"a": x[:, :1], "b": {"c": x[:, 1:]}})
  assert score.compute({"shifted": apart}, given) == found
  blind = Outputs(None, aux={"latent": 0 * x})
  assert score.compute({"shifted": blind}, given)["adapted_accuracy/0"] == pytest.approx(0.5)


def test_adaptation_is_the_logistic_regression_of_scikit_learn():
  from sklearn.linear_model import LogisticRegression

  from mmfuse.metrics import _beyond

  label, _, x = shifted()
  chosen = _beyond._drawn(label, 30, 0)
  assert chosen.sum() == 30 and np.bincount(label[chosen]).tolist() == [15, 15]
  want = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(x[chosen], label[chosen])
  found = metrics.adaptation(30, draws=1).compute(
    {"shifted": Outputs(None, aux={"latent": x})}, {"shifted": part(label)}
  )
  right = want.score(x[~chosen], label[~chosen])
  assert found == {"adapted_accuracy": pytest.approx(right)}


def test_what_has_no_class_or_too_few_rows_is_not_judged():
  label, _, x = shifted(40)
  outputs = {"shifted": Outputs(x[:, :2], aux={"latent": x, "members": x[:, None]})}
  with pytest.raises(Unavailable, match="40 rows adapt, and shifted has 40 of a kind"):
    metrics.adaptation(40).compute(outputs, {"shifted": part(label)})
  with pytest.raises(ValueError, match="at least 1, got 0 and 10"):
    metrics.adaptation(0)
  numbers = {"shifted": part(label.astype(float))}
  for score in (metrics.adaptation(4), metrics.under_shift(), metrics.disagreement("shifted")):
    with pytest.raises(Unavailable, match="needs one class a row"):
      score.compute(outputs, numbers)
