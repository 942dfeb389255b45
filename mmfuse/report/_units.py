"""From records to one number per unit: the fold where there are folds, else the seed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.report._records import Record
from mmfuse.report._statistics import Difference, paired

FUSED = "fused"  # key of a row's own prediction in "validation" and "test"
UNIMODAL = "unimodal/"  # prefix of the rows of single modalities; all others are fused


def value(record: Record, split: str, head: str) -> float | None:
  """The score of a head in a split; None where there is none or it is not finite."""
  found = (record.get(split) or {}).get(head)
  return None if found is None or not np.isfinite(found) else float(found)


def by_run(records: Sequence[Record], split: str, head: str) -> dict[tuple, float]:
  """{(unit, seed): value} where there is one; the unit is the fold where there are folds."""
  found = {}
  for r in records:
    score = value(r, split, head)
    if score is not None:
      found[(r["seed"] if r.get("fold") is None else r["fold"], r["seed"])] = score
  return found


def per_unit(runs: Mapping[tuple, float], keys: Iterable[tuple]) -> list[float]:
  """One value per unit: seeds are averaged within a fold first."""
  groups: dict[Any, list[float]] = {}
  for key in sorted(keys):
    groups.setdefault(key[0], []).append(runs[key])
  return [float(np.mean(v)) for v in groups.values()]


def difference(row: Sequence[Record], base: Sequence[Record], split: str) -> Difference | None:
  """row - baseline on the fused score, over the (unit, seed) both have."""
  x, y = by_run(row, split, FUSED), by_run(base, split, FUSED)
  both = set(x) & set(y)
  return paired(per_unit(x, both), per_unit(y, both))
