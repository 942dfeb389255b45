"""Scores beyond the data that were learnt from: shifted rows, members that disagree, fast adaptation.

Where a part has `truth["kind"]` [N], whole numbers, each score stands also for every kind, as `name/kind`.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import jax
import numpy as np

from mmfuse.core import Outputs, Unavailable
from mmfuse.metrics._calibration import ece
from mmfuse.metrics._collected import Collected, mean_probabilities, of_kinds
from mmfuse.metrics._latent_quality import logistic_regression
from mmfuse.metrics._scores import Score

LEAST = 1e-12  # a probability in a logarithm


def _classes(part: Any, what: str) -> np.ndarray:
  """Labels [N] of a part, -1 where unknown."""
  label = part.label
  if label is None or np.asarray(label).ndim != 1 or np.asarray(label).dtype.kind not in "iu":
    raise Unavailable(f"{what} needs one class a row")
  known = getattr(part, "labelled", None)
  return np.asarray(label) if known is None else np.where(known, label, -1)


def _members(outputs: Outputs) -> np.ndarray:
  """The class that each member says, [N, K]."""
  members = outputs.aux.get("members")
  if members is None or np.asarray(members).ndim != 3:
    raise Unavailable("disagreement is that of members of an ensemble, and the method has none")
  return np.asarray(members).argmax(-1)


def under_shift(part: str = "shifted") -> Collected:
  r"""Accuracy, NLL and ECE on the part "shifted", which nothing was learnt or chosen from.

  Accuracy is that of the prediction. NLL = -mean log p(y), in nats, and ECE (15 bins) are of p = (1/K)
  \sum_k softmax(z_k) over `aux["members"]` [N, K, C], where there are members, so that votes and means
  are judged alike; else of the softmax of the logits. part: another name, default "shifted".
  """

  def scores(outputs: Outputs, label: np.ndarray) -> dict[str, float]:
    known = label >= 0
    label, p = label[known], mean_probabilities(outputs)[known]
    if not len(label):
      return dict.fromkeys(names, float("nan"))
    said = np.asarray(outputs.logits)[known].argmax(-1)
    nll = -np.log(np.maximum(p[np.arange(len(label)), label], LEAST)).mean()
    values = float(np.mean(said == label)), float(nll), ece(np.minimum(p, 1.0), label)
    return dict(zip(names, values))

  def compute(outputs, parts):
    label = _classes(parts[part], "under_shift")
    of_rows = lambda rows: scores(_rows(outputs[part], rows), label[rows])
    return of_kinds(parts[part], len(label), of_rows)

  names = tuple(f"{part}_{n}" for n in ("accuracy", "nll", "ece"))
  passports = (
    Score(names[0], share=True, words=f"accuracy, {part}"),
    Score(names[1], larger_is_better=False, words=f"negative log likelihood, {part}"),
    Score(names[2], larger_is_better=False, share=True, words=f"ece, {part}"),
  )
  return Collected((part,), compute, passports)


def _rows(outputs: Outputs, rows: np.ndarray) -> Outputs:
  """What is said of some rows."""
  return jax.tree.map(lambda x: np.asarray(x)[rows], outputs)


def disagreement(part: str = "test") -> Collected:
  r"""2 / (K (K - 1)) \sum_{i < j} mean [argmax z_i != argmax z_j] of `aux["members"]` [N, K, C].

  `disagreement`, of one member 0, and `member_accuracy`, the mean of the members' own; of another part
  than "test" (default) its name stands before. Raises core.Unavailable for a method without members.
  """

  def compute(outputs, parts):
    said, label = _members(outputs[part]), _classes(parts[part], "disagreement")

    def scores(rows: np.ndarray) -> dict[str, float]:
      here, known = said[rows], label[rows] >= 0
      apart = [np.mean(here[:, i] != here[:, j]) for i, j in combinations(range(here.shape[1]), 2)]
      right = here[known] == label[rows][known][:, None]
      found = float(np.mean(apart)) if apart else 0.0
      return dict(zip(names, (found, float(right.mean()) if len(right) else float("nan"))))

    return of_kinds(parts[part], len(label), scores)

  before = "" if part == "test" else f"{part}_"
  names = f"{before}disagreement", f"{before}member_accuracy"
  passports = (
    Score(names[0], share=True, words="disagreement of members"),
    Score(names[1], share=True, words="accuracy of a member"),
  )
  return Collected((part,), compute, passports)


def adaptation(
  rows: int = 60, *, draws: int = 10, ridge: float = 0.5, part: str = "shifted"
) -> Collected:
  r"""Accuracy of a logistic regression of frozen features, fitted to a few rows of a shifted distribution.

  Features are `aux["latent"]` [N, D], of an ensemble those of all members side by side, else those of all
  modalities. \sum_n CE_n + ridge |W|^2 is minimised over `rows` rows of a kind, drawn by class with a
  fixed seed; all other rows of the kind are judged. `adapted_accuracy` is the mean over kinds. Pace, Russo
  and Shanahan, arXiv 2006.07119, 2020, with sizes of ours.

  Args:
    rows: default 60.
    draws: of those rows, whose accuracies are averaged; default 10.
    ridge: default .5, the C = 1 of other libraries.
    part: default "shifted".

  Raises:
    ValueError: fewer than one row or draw. Unavailable: (of `compute`) a kind with no row left to judge.
  """
  if rows < 1 or draws < 1:
    raise ValueError(f"rows and draws must be at least 1, got {rows} and {draws}")
  name = "adapted_accuracy"

  def compute(outputs, parts):
    label, features = _classes(parts[part], name), representation(outputs[part])

    def scores(chosen: np.ndarray) -> dict[str, float]:
      chosen = chosen[label[chosen] >= 0]
      if len(chosen) <= rows:
        raise Unavailable(f"{rows} rows adapt, and {part} has {len(chosen)} of a kind")
      x, (classes, y) = features[chosen], np.unique(label[chosen], return_inverse=True)
      found = [_adapted(x, y, len(classes), _drawn(y, rows, draw), ridge) for draw in range(draws)]
      return {name: float(np.mean(found))}

    found = of_kinds(parts[part], len(label), scores)
    each = [v for k, v in found.items() if k != name]
    return {**found, name: float(np.mean(each))} if each else found

  return Collected((part,), compute, (Score(name, share=True, words="accuracy once adapted"),))


def _drawn(label: np.ndarray, rows: int, draw: int) -> np.ndarray:
  """bool [N]: `rows` rows, of each class in proportion."""
  shuffled = np.random.default_rng(draw).permutation(len(label))
  by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
  evenly = ((np.arange(rows) + 0.5) * len(label) / rows).astype(int)
  found = np.zeros(len(label), bool)
  found[by_class[evenly]] = True
  return found


def _adapted(
  x: np.ndarray, label: np.ndarray, classes: int, fitted: np.ndarray, ridge: float
) -> float:
  """The accuracy on the rows that are not `fitted`."""
  centre = x[fitted].mean(0, keepdims=True)
  count = int(fitted.sum())
  kernel, bias = logistic_regression(x[fitted] - centre, label[fitted], classes, ridge / count)
  said = ((x[~fitted] - centre) @ kernel + bias).argmax(-1)
  return float(np.mean(said == label[~fitted]))


def representation(outputs: Outputs) -> np.ndarray:
  """Features [N, D] in float64: aux["latent"], else all of `features`, side by side."""
  latent: Any = outputs.aux.get("latent")
  parts: Mapping[str, Any] | Any = outputs.features if latent is None else latent
  leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(parts)]
  return np.concatenate([x.reshape(len(x), -1) for x in leaves], 1)
