"""What each modality adds, from the scores of subsets of modalities."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import factorial


def _by_set(scores: Mapping[tuple[str, ...], float]) -> tuple[dict[frozenset, float], list[str]]:
  if not scores:
    raise ValueError("contributions need the scores of subsets of modalities, got none")
  wrong = [s for s in scores if isinstance(s, str)]
  if wrong:
    raise TypeError(
      f"a subset is a tuple of modalities, got the string {wrong[0]!r}; write ({wrong[0]!r},)"
    )
  values = {frozenset(s): float(v) for s, v in scores.items()}
  return values, sorted(frozenset().union(*values))


def _value(values: Mapping[frozenset, float], subset: Iterable[str]) -> float:
  subset = frozenset(subset)
  if subset not in values:
    given = sorted((tuple(sorted(s)) for s in values), key=lambda s: (len(s), s))
    raise ValueError(
      f"the score of the subset {tuple(sorted(subset))} is needed, given are: "
      f"{', '.join(map(str, given))}"
    )
  return values[subset]


def contribution(scores: Mapping[tuple[str, ...], float]) -> dict[str, float]:
  """{m: v(all) - v(all without m)}: what is lost when modality m is masked, in units of the score.

  `scores` maps tuples of modalities (any order) to values: the full set and, for each modality, the
  set without it; for a single modality that is `()`.
  Raises ValueError naming the subset whose score is missing.
  """
  values, names = _by_set(scores)
  everything = _value(values, names)
  return {m: everything - _value(values, set(names) - {m}) for m in names}


def over_subsets(
  scores: Mapping[tuple[str, ...], float | None], *, larger_is_better: bool = True
) -> dict[str, float | None]:
  """{"complete", "mean", "worst"} of the scores of subsets of modalities, None where there is none.

  complete: that of the largest subset; mean, worst: over the subsets with a score, the complete one
  included, unweighted. None stands for a subset that no row has. A NaN (a run that diverged) is
  handed on.
  """
  values, names = {frozenset(s): v for s, v in scores.items()}, frozenset().union(*scores)
  known = [float(v) for v in values.values() if v is not None]
  if not known:
    return dict.fromkeys(("complete", "mean", "worst"))
  if any(v != v for v in known):
    worst = float("nan")
  else:
    worst = min(known) if larger_is_better else max(known)
  return {"complete": values.get(names), "mean": sum(known) / len(known), "worst": worst}


def shapley(scores: Mapping[tuple[str, ...], float]) -> dict[str, float]:
  r"""Shapley values: {m: \sum_{S not containing m} |S|! (M - |S| - 1)! / M! (v(S + m) - v(S))}.

  `scores` holds all 2^M subsets, `()` (the score of the majority class, say) included. The values
  are efficient: they add up to v(all) - v(()).
  Raises ValueError naming a subset whose score is missing.
  Reference: Shapley, "A value for n-person games", Contributions to the Theory of Games II, 1953.
  """
  values, names = _by_set(scores)
  out = {}
  for m in names:
    others = [n for n in names if n != m]
    out[m] = sum(
      factorial(size)
      * factorial(len(others) - size)
      / factorial(len(names))
      * (_value(values, (*s, m)) - _value(values, s))
      for size in range(len(others) + 1)
      for s in combinations(others, size)
    )
  return out


def imbalance(values: Mapping[str, float]) -> float:
  """max_m phi_m - min_m phi_m of modality values, in units of the score; 0 for one modality.

  Raises ValueError for no modality. The benchmark literature condenses Shapley values without
  saying how (Xu et al., BalanceBenchmark, arXiv 2502.10816, 2025); the range is ours.
  """
  if not values:
    raise ValueError("the imbalance of no modalities is undefined")
  return max(values.values()) - min(values.values())
