"""Lines of `baselines.json`: one score a split or fold, and what a row differs from it by."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.report._records import Record
from mmfuse.report._statistics import Difference, estimate
from mmfuse.report._units import per_unit

LINEAR = "linear"  # the baseline line, and the prefix of those of single modalities
CONSTANT = "majority class"  # the constant predictor


def scores_of(lines: Iterable[Record], split: str) -> dict[str, dict[Any, float]]:
  """{baseline: {fold: its score}}, in the order given; the fold is None without folds."""
  found: dict[str, dict[Any, float]] = {}
  for line in lines:
    if (score := line.get(split)) is not None and np.isfinite(score):
      found.setdefault(line["name"], {})[line.get("fold")] = float(score)
  return found


def constant_scores(lines: Iterable[Record], split: str) -> dict[str, float]:
  """{score: mean over splits} of the constant predictor."""
  found: dict[str, list[float]] = {}
  for line in lines:
    scores = (line.get("scores") or {}).get(split, {}) if line["name"] == CONSTANT else {}
    for name, value in scores.items():
      if value is not None and np.isfinite(value):
        found.setdefault(name, []).append(float(value))
  return {name: float(np.mean(values)) for name, values in found.items()}


def less(runs: Mapping[tuple, float], constant: Mapping[Any, float]) -> Difference | None:
  """Runs {(unit, seed): value} less what has one score a fold, or one score: interval, no test.

  On one split the interval is that of the runs; over folds it is paired.
  """
  fixed = {key: constant.get(None, constant.get(key[0])) for key in runs}
  both = {key: runs[key] - c for key, c in fixed.items() if c is not None}
  found = estimate(per_unit(both, both))
  return None if found is None else Difference(found.mean, found.half, None, None, found.n)


def reasons(lines: Sequence[Record], known: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
  """({baseline without a score: why}, [notes on folds without one])."""
  absent = {e["name"]: str(e["why"]) for e in lines if e.get("why") and e["name"] not in known}
  some = [
    f"{e['name']}, fold {e['fold']}: n/a: {e['why']}"
    for e in lines
    if e.get("why") and e["name"] in known
  ]
  return absent, some


def _test_rows(lines: Iterable[Record]) -> list[Any]:
  """How many rows each fold was scored on: scores on other rows are not compared."""
  return [(e.get("rows") or {}).get("test") for e in lines]


def fields(
  name: str, lines: Sequence[Record], known: Mapping[str, Mapping[Any, float]]
) -> dict[str, Any]:
  """What the row of a linear baseline holds, the rest is n/a."""
  mine = [e for e in lines if e["name"] == name]
  test = estimate([*known[name].values()])
  tests = [(e.get("scores") or {}).get("test", {}) for e in mine]
  further = {k: [t[k] for t in tests if t.get(k) is not None] for t in tests for k in t}
  chosen = list(dict.fromkeys(e["C"] for e in mine if e.get("C") is not None))
  alone = name.removeprefix(f"{LINEAR}/")
  difference = None
  if alone != name and _test_rows(mine) == _test_rows(e for e in lines if e["name"] == LINEAR):
    runs = {(fold, 0): score for fold, score in known[name].items()}
    difference = less(runs, known.get(LINEAR, {}))
  return {
    "method": name,
    "test": test,
    "unimodal": {alone: test} if alone != name else {},
    "validation": estimate([e["validation"] for e in mine if e.get("validation") is not None]),
    "differences": {LINEAR: difference},
    "scores": {k: estimate(v) for k, v in further.items() if v},
    "hyper": tuple({"C": c} for c in chosen),
  }
