"""Scores of all outputs of one or more parts at once, on the host: retrieval, what is out of distribution."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmfuse.core import Outputs
from mmfuse.metrics._calibration import auroc
from mmfuse.metrics._scores import Score


class Collected(NamedTuple):
  """Scores that no sum over batches gives. `train.collect` finds the parts and calls `compute`."""

  reads: tuple[str, ...]  # names or roles of parts: "query", "database", "test", "ood", "shifted"
  # ({part: Outputs of numpy arrays in row order}, {part: core.Source}) -> {score: value}
  compute: Callable[[Mapping[str, Outputs], Mapping[str, Any]], dict[str, float]]
  scores: tuple[Score, ...]  # of `compute`; the first is the primary one
  # ({part: core.Source}) -> {score: value} of an answer at random; None = not known
  chance: Callable[[Mapping[str, Any]], dict[str, float]] | None = None
  # as `compute` -> {curve: values}; None = there are none
  curves: Callable[[Mapping[str, Outputs], Mapping[str, Any]], dict[str, list[float]]] | None = None


def mean_probabilities(outputs: Outputs) -> np.ndarray:
  """p [N, C] in float64: the mean of the softmax of `aux["members"]` [N, K, C], else that of the logits."""
  z = outputs.aux.get("members")
  z = np.asarray(outputs.logits)[:, None] if z is None else np.asarray(z)
  z = z.astype(np.float64)
  p = np.exp(z - z.max(-1, keepdims=True))
  return (p / p.sum(-1, keepdims=True)).mean(1)


def of_kinds(
  part: Any, count: int, scores: Callable[[np.ndarray], dict[str, float]]
) -> dict[str, float]:
  """`scores(rows)` of all rows of a part, and as `name/kind` of those of each `truth["kind"]` [N].

  Args:
    part: a source; what has no `truth` has no kinds.
    count: N.
    scores: of row numbers.
  """
  found, kind = scores(np.arange(count)), getattr(part, "truth", {}).get("kind")
  if kind is None:
    return found
  for k in np.unique(kind):
    found |= {f"{n}/{k}": v for n, v in scores(np.flatnonzero(kind == k)).items()}
  return found


def ood_auroc() -> Collected:
  """AUROC of telling rows of "ood" from those of "test" by the entropy of the prediction, softmax of logits.

  Entropy is that of the mean over `aux["members"]` [N, K, C] (logits) where there are members. Where the
  part "ood" has `truth["kind"]`, also `ood_auroc/<kind>` of each.
  """
  name = "ood_auroc"

  def entropy(outputs: Outputs) -> np.ndarray:
    p = mean_probabilities(outputs)
    return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)

  def compute(outputs, parts):
    known, strange = (entropy(outputs[p]) for p in ("test", "ood"))

    def scores(rows: np.ndarray) -> dict[str, float]:
      which = np.repeat([0, 1], [len(known), len(rows)])
      return {name: auroc(np.concatenate([known, strange[rows]]), which)}

    return of_kinds(parts.get("ood"), len(strange), scores)

  return Collected(("test", "ood"), compute, (Score(name, share=True, words="AUROC of OOD"),))
