"""Retrieval from one modality to another: rankings, average precision, precision and recall, chance."""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from mmfuse.core import Outputs, Unavailable
from mmfuse.metrics._collected import Collected
from mmfuse.metrics._hamming import hamming_ranking, pack_bits
from mmfuse.metrics._scores import Score

QUERY, DATABASE = PARTS = ("query", "database")
RECALL = tuple(round(0.05 * i, 2) for i in range(21))  # the levels of a precision-recall curve
DIVISORS = ("found", "all")
_CELLS = 1 << 22  # of a ranking at a time


def relevance(query: np.ndarray, database: np.ndarray) -> np.ndarray:
  """bool [Q, D]: the same class (labels [N]), or a label in common (labels [N, L] of 0/1)."""
  if query.ndim == 1:
    return query[:, None] == database[None]
  return np.asarray(query.astype(np.int64) @ database.astype(np.int64).T > 0)


def precision_of_hits(hits: np.ndarray) -> np.ndarray:
  """[Q, K]: of the first r ranked rows the share that is relevant; hits bool [Q, K] in rank order."""
  return np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)


def average_precision_of_hits(
  hits: np.ndarray, total: np.ndarray, k: int | None = None, divisor: str = "found"
) -> np.ndarray:
  r"""[Q] AP@k = \sum_{r \le k} P@r rel_r / n; a query without a relevant row counts 0.

  Args:
    hits: rel, bool [Q, D] in rank order.
    total: R [Q], relevant rows of the whole database.
    k: ranks that count; default None, all of them, where both divisors are R.
    divisor: n, "found" (default): the relevant rows inside the top k; "all": min(R, k).

  Raises:
    ValueError: another divisor.
  """
  if divisor not in DIVISORS:
    raise ValueError(f"divisor must be one of: {', '.join(DIVISORS)}, got {divisor!r}")
  k = hits.shape[1] if k is None else min(k, hits.shape[1])
  top = hits[:, :k]
  n = top.sum(1) if divisor == "found" else np.minimum(k, total)
  return np.asarray((precision_of_hits(top) * top).sum(1) / np.maximum(n, 1))


def average_precision_at_k(
  similarity: np.ndarray, relevant: np.ndarray, k: int, divisor: str = "found"
) -> np.ndarray:
  """[Q]: `average_precision_of_hits` of a similarity.

  Args:
    similarity: [Q, D]; ranks fall with it, ties by database index.
    relevant: bool [Q, D].
    k: >= 1.
    divisor: "found" (default) or "all".
  """
  ranks = np.argsort(-similarity, axis=1, kind="stable")
  hits = np.take_along_axis(relevant, ranks, 1)
  return average_precision_of_hits(hits, relevant.sum(1), k, divisor)


def precision_at_recall(hits: np.ndarray) -> np.ndarray:
  """[21]: the mean over queries of the best precision at recall >= 0, .05, ... 1.

  hits bool [Q, D] in rank order, D the whole database; a query without a relevant row has 0.
  """
  total = hits.sum(1)
  best = np.maximum.accumulate(precision_of_hits(hits)[:, ::-1], 1)[:, ::-1]
  ranks = np.nonzero(hits)[1]  # of one query after the other, ascending
  start = np.cumsum(total) - total
  found = np.zeros((len(hits), len(RECALL)))
  for i, level in enumerate(RECALL):
    # the rank at which so much is found: of the first relevant row for recall 0
    wanted = np.maximum(np.ceil(level * total - 1e-9).astype(int), 1)
    there = np.flatnonzero(total)
    rank = ranks[start[there] + wanted[there] - 1]
    found[there, i] = best[there, rank]
  return np.asarray(found.mean(0))


def chance_at_k(
  total: np.ndarray, database: int, k: int | None = None, divisor: str = "found"
) -> np.ndarray:
  r"""[Q]: what AP@k of a random order is on average, exactly.

  found: (H_k p + (E - p) (k - H_k) / (k - 1)) / k, E = k R / D relevant rows inside the top k, p the
  chance of at least one; all: R / D (H_k + (R - 1) / (D - 1) (k - H_k)) / min(R, k). H_k = \sum 1 / r.

  Args:
    total: R [Q], relevant rows of the database.
    database: D, its rows.
    k, divisor: as in `average_precision_of_hits`.
  """
  k = database if k is None else min(k, database)
  divisor = "all" if k == database else divisor  # the same, without a product over ranks
  harmonic = (1.0 / np.arange(1, k + 1)).sum()
  found, place = np.unique(total, return_inverse=True)
  r = found.astype(np.float64)
  if divisor == "all":
    both = (r - 1) / max(database - 1, 1)
    value = r / database * (harmonic + both * (k - harmonic)) / np.maximum(np.minimum(r, k), 1)
  else:
    left = database - r[:, None] - np.arange(k)
    share = np.maximum(left, 0.0) / (database - np.arange(k))
    some = 1.0 - share.prod(1)
    value = (harmonic * some + (k * r / database - some) * (k - harmonic) / max(k - 1, 1)) / k
  return np.where(r > 0, value, 0.0)[place]


def relevant_rows(query: np.ndarray, database: np.ndarray) -> np.ndarray:
  """R [Q]: how many database rows are relevant to a query, counted some queries at a time."""
  step = max(1, _CELLS // len(database))
  parts = [query[i : i + step] for i in range(0, len(query), step)]
  return np.concatenate([relevance(part, database).sum(1) for part in parts])


class Direction(NamedTuple):
  """Queries of one modality and the database of another."""

  source: str
  target: str
  rows: Mapping[str, np.ndarray]  # {"query", "database": rows int [n] that have it, with a label}

  @property
  def name(self) -> str:
    """As scores and columns call it."""
    return f"{self.source}->{self.target}"


def _usable(part: Any, modality: str) -> np.ndarray:
  """The rows of a part that have a modality, a known label and a weight above 0."""
  found = np.asarray(part.mask[modality]).copy()
  for name in ("labelled", "weight"):
    value = getattr(part, name, None)
    found &= True if value is None else np.asarray(value) > 0
  return np.flatnonzero(found)


def directions(parts: Mapping[str, Any], modalities: Any = None) -> list[Direction]:
  """All M (M - 1) from a modality to another that have a query and a database row, sorted.

  Args:
    parts: {"query", "database": source}.
    modalities: default None, all of them.

  Raises:
    Unavailable: fewer than two modalities, no label, or no direction with rows.
  """
  names = sorted(parts[QUERY].mask if modalities is None else modalities)
  if len(names) < 2:
    raise Unavailable(f"retrieval goes from one modality to another, and there is: {names}")
  if any(parts[p].label is None for p in PARTS):
    raise Unavailable("retrieval is judged by labels, and there are none")
  found = [
    Direction(a, b, {QUERY: _usable(parts[QUERY], a), DATABASE: _usable(parts[DATABASE], b)})
    for a, b in permutations(names, 2)
  ]
  found = [d for d in found if all(len(r) for r in d.rows.values())]
  if not found:
    raise Unavailable("no query has a modality of which the database has another")
  return found


def unit_rows(x: np.ndarray) -> np.ndarray:
  """x [N, ...] flattened and divided by its rows' lengths, in float64; a row of zeros stays."""
  x = x.reshape(len(x), -1).astype(np.float64)
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def space_of(outputs: Outputs) -> tuple[Mapping[str, Any], bool]:
  """({m: [N, L]}, whether these are bits): codes where there are some, else features."""
  codes = outputs.aux.get("codes")
  found = codes if isinstance(codes, Mapping) else outputs.features
  arrays = {m: np.asarray(x) for m, x in found.items() if hasattr(x, "shape")}
  return arrays, isinstance(codes, Mapping)


class Ranked(NamedTuple):
  """Rankings of one direction, some queries at a time."""

  direction: Direction
  rank: Callable[[slice], np.ndarray]  # of queries -> int [q, D], database rows of the direction
  labels: Mapping[str, np.ndarray]

  def hits(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rel bool [q, D] in rank order, R [q]) of all queries in turn."""
    count, size = (len(self.direction.rows[p]) for p in PARTS)
    step = max(1, _CELLS // size)
    for i in range(0, count, step):
      chosen = slice(i, i + step)
      relevant = relevance(self.labels[QUERY][chosen], self.labels[DATABASE])
      yield np.take_along_axis(relevant, self.rank(chosen), 1), relevant.sum(1)


def ranked(outputs: Mapping[str, Outputs], parts: Mapping[str, Any]) -> Iterator[Ranked]:
  """Each direction: codes by Hamming distance, features by cosine; ties by database index.

  Args:
    outputs: {"query", "database": Outputs in row order}.
    parts: {"query", "database": source}.

  Raises:
    Unavailable: no features of two modalities, or of different widths; as `directions`.
  """
  (query, bits), (database, _) = (space_of(outputs[p]) for p in PARTS)
  names = sorted(set(query) & set(database) & set(parts[QUERY].mask))
  if len(names) < 2:
    raise Unavailable("it gives no features of its modalities, which retrieval compares")
  width = {m: int(np.prod(query[m].shape[1:], dtype=int)) for m in names}
  if len(set(width.values())) > 1:
    said = ", ".join(f"{m} {n}" for m, n in width.items())
    raise Unavailable(f"its features are of different widths ({said}), and retrieval compares them")
  for d in directions(parts, names):
    a, b = query[d.source][d.rows[QUERY]], database[d.target][d.rows[DATABASE]]
    labels = {p: np.asarray(parts[p].label)[d.rows[p]] for p in PARTS}
    yield Ranked(d, _by_hamming(a, b) if bits else _by_cosine(a, b), labels)


def _by_hamming(query: np.ndarray, database: np.ndarray) -> Callable[[slice], np.ndarray]:
  query, database = pack_bits(query), pack_bits(database)
  return lambda rows: hamming_ranking(query[rows], database)


def _by_cosine(query: np.ndarray, database: np.ndarray) -> Callable[[slice], np.ndarray]:
  query, database = unit_rows(query), unit_rows(database).T
  return lambda rows: np.argsort(-(query[rows] @ database), axis=1, kind="stable")


def _finite(outputs: Mapping[str, Outputs]) -> bool:
  return all(np.isfinite(x).all() for o in outputs.values() for x in space_of(o)[0].values())


def _with_means(each: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """{score: mean over directions, "score/a->b": of each} of {direction: {score: value}}."""
  scores = list(dict.fromkeys(s for found in each.values() for s in found))
  means = {s: float(np.mean([found[s] for found in each.values()])) for s in scores}
  return means | {f"{s}/{d}": found[s] for s in scores for d, found in each.items()}


def map_at_k(k: int = 50, divisor: str = "found") -> Collected:
  """Mean AP@k and AP over the whole database, from each modality to each other one.

  Ranks by Hamming distance of `outputs.aux["codes"]` {m: [N, L]} where there are codes, else by the
  cosine of `outputs.features` {m: [N, D]}; ties by database index. Reads "query" and "database"; a row
  without the modality, a known label or a weight takes no part. Scores: `map_at_<k>`, `map_at_all`, means
  over the directions, and of each `map_at_k/a->b`, `map_at_all/a->b`; NaN where the features are not finite.
  `chance` is a random order's; `curves` are `precision_at_recall` of each direction.

  Args:
    k: ranks, default 50.
    divisor: of AP@k, see `average_precision_of_hits`; default "found".

  Raises:
    ValueError: k < 1, another divisor.
  """
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
  if divisor not in DIVISORS:
    raise ValueError(f"divisor must be one of: {', '.join(DIVISORS)}, got {divisor!r}")
  name, whole = f"map_at_{k}", "map_at_all"

  def compute(outputs, parts):
    finite, each = _finite(outputs), {}
    for one in ranked(outputs, parts):
      found = [
        (average_precision_of_hits(h, r, k, divisor), average_precision_of_hits(h, r))
        for h, r in (one.hits() if finite else ())
      ]
      top, every = (float(np.concatenate(x).mean()) for x in zip(*found)) if found else [np.nan] * 2
      each[one.direction.name] = {name: top, whole: every}
    return _with_means(each)

  def chance(parts):
    each = {}
    for d in directions(parts):
      labels = [np.asarray(parts[p].label)[d.rows[p]] for p in PARTS]
      total, size = relevant_rows(*labels), len(labels[1])
      of = lambda *how, t=total, n=size: float(chance_at_k(t, n, *how).mean())
      each[d.name] = {name: of(k, divisor), whole: of()}
    return _with_means(each)

  def curves(outputs, parts):
    found = {}
    for one in ranked(outputs, parts):
      pieces = [(precision_at_recall(hits), len(hits)) for hits, _ in one.hits()]
      values, sizes = zip(*pieces)
      found[one.direction.name] = np.average(values, axis=0, weights=sizes).tolist()
    return found

  passports = (
    Score(name, share=True, words=f"mAP@{k}"),
    Score(whole, share=True, words="mAP@all"),
  )
  return Collected(PARTS, compute, passports, chance, curves)
