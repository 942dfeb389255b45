"""The best row by validation: what the table marks is what `mmfuse predict` takes."""

import math
from collections.abc import Iterable, Mapping, Sequence

from mmfuse.metrics import Score
from mmfuse.report._passports import judged_by
from mmfuse.report._records import Record
from mmfuse.report._units import FUSED, UNIMODAL, value

_DIGITS = 7  # scores are float32: beyond it, equal numbers differ by rounding


def best_by_validation(
  groups: Mapping[str, Sequence[Record]], own: Mapping[str, Score] = {}
) -> str | None:
  """The method of the best mean validation score of its own prediction; `own`: the user's scores.

  Ties go to the lower mean validation loss (`scores`), where all runs recorded one, then to the
  earlier method. A run without a score counts as the worst; None where every method has such a run.
  """
  ranked = {m: (-_mean(s), _mean(_losses(g))) for m, g in groups.items() if (s := _scores(g, own))}
  return min(ranked, key=lambda m: ranked[m], default=None)


def best_fused(records: Iterable[Record], own: Mapping[str, Score] = {}) -> str | None:
  """`best_by_validation` of the rows that are no single modality.

  `own`: {name: passport} of scores of which the name does not say whether more is better.
  """
  groups: dict[str, list[Record]] = {}
  for r in records:
    if not r["method"].startswith(UNIMODAL):
      groups.setdefault(r["method"], []).append(r)
  return best_by_validation(groups, own)


def chosen_score(record: Record) -> float | None:
  """What a run was chosen by: the score over subsets that `select` names, or that of the fused head."""
  if not record.get("select"):
    return value(record, "validation", FUSED)
  found = ((record.get("scores") or {}).get("validation") or {}).get(record["select"])
  return None if found is None or not math.isfinite(found) else float(found)


def _scores(records: Sequence[Record], own: Mapping[str, Score]) -> list[float]:
  """More is better; [] where a run has none."""
  found = [(chosen_score(r), judged_by(r, own).sign) for r in records]
  known = [sign * v for v, sign in found if v is not None]
  return known if len(known) == len(found) else []


def _losses(records: Sequence[Record]) -> list[float]:
  scores = [(r.get("scores") or {}).get("validation") or {} for r in records]
  names = [("mean/nll", "mean/rmse") if r.get("select") else ("nll", "rmse") for r in records]
  found = [s.get(nll, s.get(rmse)) for s, (nll, rmse) in zip(scores, names)]
  return [math.inf if v is None or not math.isfinite(v) else float(v) for v in found]


def _mean(values: Sequence[float]) -> float:
  return round(math.fsum(values) / len(values), _DIGITS)
