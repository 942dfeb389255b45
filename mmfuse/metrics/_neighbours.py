"""Nearest neighbours: how well a frozen representation tells classes apart, with nothing fitted to it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse.core import Outputs, Unavailable
from mmfuse.metrics._collected import Collected
from mmfuse.metrics._retrieval import DATABASE, PARTS, QUERY, unit_rows
from mmfuse.metrics._scores import Score

_CELLS = 1 << 22  # similarities at a time


def neighbour_classes(
  query: np.ndarray, database: np.ndarray, label: np.ndarray, k: int = 1
) -> np.ndarray:
  """int [Q]: the class that most of the k rows of the database with the largest cosine have.

  Rows of equal cosine are taken in the order of the database; of classes with as many votes the one
  whose nearest row is nearest wins.

  Args:
    query, database: [Q, ...] and [D, ...], flattened.
    label: int [D].
    k: 1..D, default 1.

  Raises:
    ValueError: k outside 1..D.
  """
  if not 1 <= k <= len(database):
    raise ValueError(f"k must lie in 1..{len(database)}, the rows of the database, got {k}")
  classes, number = np.unique(label, return_inverse=True)
  query, rows = unit_rows(query), unit_rows(database).T
  found, step = [], max(1, _CELLS // len(database))
  for i in range(0, len(query), step):
    near = np.argsort(-(query[i : i + step] @ rows), axis=1, kind="stable")[:, :k]
    voted = number[near]  # [q, k]
    votes = (voted[:, :, None] == voted[:, None, :]).sum(2)  # of the class of each neighbour
    found.append(voted[np.arange(len(voted)), votes.argmax(1)])  # the first of the most
  return np.asarray(classes[np.concatenate(found)])


def _counts(part: Any) -> np.ndarray:
  """The rows of a part that have a modality, a known label and a weight above 0."""
  found = np.any([np.asarray(v) for v in part.mask.values()], axis=0)
  for name in ("labelled", "weight"):
    value = getattr(part, name, None)
    found = found & (True if value is None else np.asarray(value) > 0)
  return np.flatnonzero(found)


def _classes(parts: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  label = {p: parts[p].label for p in PARTS}
  for y in label.values():
    if y is None or np.asarray(y).ndim != 1 or np.asarray(y).dtype.kind not in "iu":
      raise Unavailable("neighbours are judged by a class a row, and the labels are none")
  return {p: np.asarray(label[p])[rows[p]] for p in PARTS}


def knn(k: int = 1) -> Collected:
  """The share of queries whose class is that of their nearest neighbours: `neighbour_classes`.

  Compares `outputs.features` {m: [N, D]} of all modalities side by side, by cosine. Reads "query" and
  "database"; a row without any modality, a known label or a weight takes no part. The score is
  `knn_<k>`, NaN where the features are not finite; `chance` is that of a database row at random.

  Args:
    k: neighbours that vote, default 1.

  Raises:
    ValueError: k < 1.
  """
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
  name = f"knn_{k}"

  def space(outputs: Outputs, rows: np.ndarray) -> np.ndarray:
    arrays = [np.asarray(x) for _, x in sorted(outputs.features.items()) if hasattr(x, "shape")]
    if not arrays:
      raise Unavailable("it gives no features, which neighbours are found by")
    flat = [x.reshape(len(x), -1) for x in arrays]
    return np.concatenate(flat, 1)[rows].astype(np.float64)

  def compute(outputs, parts):
    rows = {p: _counts(parts[p]) for p in PARTS}
    label = _classes(parts, rows)
    h = {p: space(outputs[p], rows[p]) for p in PARTS}
    if not all(np.isfinite(x).all() for x in h.values()):
      return {name: float("nan")}
    said = neighbour_classes(h[QUERY], h[DATABASE], label[DATABASE], k)
    return {name: float(np.mean(said == label[QUERY]))}

  def chance(parts):
    label = _classes(parts, {p: _counts(parts[p]) for p in PARTS})
    share = lambda p, c: float(np.mean(label[p] == c))
    return {name: sum(share(QUERY, c) * share(DATABASE, c) for c in np.unique(label[QUERY]))}

  return Collected(PARTS, compute, (Score(name, share=True, words=f"{k}-NN accuracy"),), chance)
