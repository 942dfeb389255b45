"""Scores of all outputs of one or more parts at once, on the host: retrieval, what is out of distribution."""

from collections.abc import Callable, Mapping
from itertools import permutations
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


def _normalised(x: np.ndarray) -> np.ndarray:
  x = x.reshape(len(x), -1).astype(np.float64)
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def relevance(query: np.ndarray, database: np.ndarray) -> np.ndarray:
  """bool [Q, D]: the same class (labels [N]), or a label in common (labels [N, L] of 0/1)."""
  if query.ndim == 1:
    return query[:, None] == database[None]
  return np.asarray(query.astype(np.int64) @ database.astype(np.int64).T > 0)


def average_precision_at_k(similarity: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
  r"""[Q] AP@k = \sum_{r \le k} P@r rel_r / min(k, R), R the relevant rows of the whole database.

  A query without any relevant row counts 0.

  Args:
    similarity: [Q, D]; ranks fall with it, ties by database index.
    relevant: bool [Q, D].
    k: >= 1.
  """
  ranks = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
  hits = np.take_along_axis(relevant, ranks, 1)
  precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
  most = np.minimum(k, relevant.sum(1))
  return (precision * hits).sum(1) / np.maximum(most, 1)


def map_at_k(k: int = 50) -> Collected:
  """Mean AP@k of `outputs.features` {m: [N, D]} by cosine, from each modality to each other one.

  Reads "query" and "database"; rows that lack the modality of a direction take no part in it. Scores:
  `map@k`, the mean over all directions, and `map@k/a->b` of each. Raises ValueError for k < 1, for
  fewer than two modalities, or without labels.
  """
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
  name = f"map@{k}"

  def compute(outputs, parts):
    features = {p: outputs[p].features for p in ("query", "database")}
    names = sorted(set(features["query"]) & set(features["database"]))
    if len(names) < 2:
      raise ValueError(f"retrieval goes from one modality to another, features: {names}")
    if any(parts[p].label is None for p in features):
      raise ValueError("retrieval is judged by labels, and there are none")
    found = {}
    for a, b in permutations(names, 2):
      rows = {
        p: np.flatnonzero(np.asarray(parts[p].mask[m])) for p, m in (("query", a), ("database", b))
      }
      take = lambda p, m, rows=rows: _normalised(np.asarray(features[p][m])[rows[p]])
      labels = {p: np.asarray(parts[p].label)[rows[p]] for p in rows}
      similarity = take("query", a) @ take("database", b).T
      each = average_precision_at_k(
        similarity, relevance(labels["query"], labels["database"]), min(k, len(rows["database"]))
      )
      found[f"{name}/{a}->{b}"] = float(each.mean()) if len(each) else np.nan
    return {name: float(np.mean(list(found.values()))), **found}

  return Collected(("query", "database"), compute, (Score(name, share=True, words=f"mAP@{k}"),))


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
