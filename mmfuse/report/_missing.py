"""Scores over subsets of modalities and over the missing rate: from records to what a table shows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmfuse import metrics
from mmfuse.metrics import Score
from mmfuse.report import _format
from mmfuse.report._records import Record
from mmfuse.report._statistics import Difference, Estimate, estimate, holm, paired
from mmfuse.report._units import per_unit

SUMMARIES = ("complete", "mean", "worst")
Subset = tuple[str, ...]


class Missing(NamedTuple):
  """What a row scores where modalities are missing; the subsets are the same for all rows."""

  over: dict[str, Estimate | None]  # {"complete", "mean", "worst": estimate}
  subsets: dict[Subset, Estimate | None]  # every subset, in the tables' order; None: no row has it
  differences: dict[str, Difference | None]  # {baseline: of the mean over subsets}
  curve: dict[float, Estimate | None]  # {missing rate: estimate}


def label(subset: Subset) -> str:
  """A subset's column: "on A+B"."""
  return f"on {'+'.join(subset)}"


def scores_of(record: Record) -> dict[Subset, float | None]:
  """{subset: score} as recorded."""
  return {tuple(e["modalities"]): e["score"] for e in record.get("subsets") or ()}


def counted(records: Sequence[Record]) -> dict[Any, set[Subset]]:
  """{fold: the subsets that some record has a score of}: what every row's mean is over."""
  found: dict[Any, set[Subset]] = {}
  for r in records:
    known = {s for s, v in scores_of(r).items() if v is not None}
    found[r.get("fold")] = found.get(r.get("fold"), set()) | known
  return found


def _over(record: Record, subsets: set[Subset], score: Score) -> dict[str, float | None]:
  """Complete, mean, worst of one run; no mean where it lacks a score that other runs have."""
  found = {s: v for s, v in scores_of(record).items() if s in subsets}
  if any(v is None for v in found.values()):
    return dict.fromkeys(SUMMARIES)
  everything = {s: found.get(s) for s in scores_of(record)}
  return metrics.over_subsets(everything, larger_is_better=score.larger_is_better)


def by_units(records: Sequence[Record], pick: Any) -> Estimate | None:
  """The estimate over units of `pick(record)`; None where no run has it."""
  runs = _runs(records, pick)
  return estimate(per_unit(runs, runs))


def _runs(records: Sequence[Record], pick: Any) -> dict[tuple, float]:
  """{(unit, seed): value} where there is one."""
  found = {(r["seed"] if r.get("fold") is None else r["fold"], r["seed"]): pick(r) for r in records}
  return {k: float(v) for k, v in found.items() if v is not None}


def missing_of(
  groups: Mapping[str, Sequence[Record]], baselines: Sequence[str], score: Score
) -> dict[str, Missing]:
  """{method: its scores}; differences of the mean are paired, Holm over the rows of a column."""
  every = [r for group in groups.values() for r in group]
  known = counted(every)
  order = list(dict.fromkeys(s for r in every for s in scores_of(r)))
  rates = sorted({e["rate"] for r in every for e in r.get("missing_rates") or ()})
  over = {id(r): _over(r, known[r.get("fold")], score) for r in every}
  mean = {m: _runs(group, lambda r: over[id(r)]["mean"]) for m, group in groups.items()}
  differences = _differences(mean, baselines)
  at = lambda r, rate: next(
    (e["score"] for e in r.get("missing_rates") or () if e["rate"] == rate), None
  )
  return {
    m: Missing(
      {name: by_units(group, lambda r, n=name: over[id(r)][n]) for name in SUMMARIES},
      {s: by_units(group, lambda r, s=s: scores_of(r).get(s)) for s in order},
      differences[m],
      {rate: by_units(group, lambda r, q=rate: at(r, q)) for rate in rates},
    )
    for m, group in groups.items()
  }


def _differences(
  mean: Mapping[str, Mapping[tuple, float]], baselines: Sequence[str]
) -> dict[str, dict[str, Difference | None]]:
  table: dict[str, dict[str, Difference | None]] = {m: {} for m in mean}
  for base in baselines:
    for m in mean:
      both = set(mean[m]) & set(mean[base])
      pair = (per_unit(mean[m], both), per_unit(mean[base], both))
      table[m][base] = None if m == base else paired(*pair)
    ps = {m: d.p for m in mean if (d := table[m][base]) is not None and d.p is not None}
    adjusted = holm(ps)
    for m, p in adjusted.items():
      found = table[m][base]
      assert found is not None
      table[m][base] = found._replace(p_holm=p)
  return table


def chosen_by(info: Mapping[str, Any]) -> str:
  """What the caption says of the choice of rates."""
  over = str(info["missing"].get("select", "")).partition("/")[0]
  what = "worst validation score" if over == "worst" else "validation mean"
  return f"Rates and epochs of all rows were chosen by the {what} over the subsets of modalities."


def notes(info: Mapping[str, Any], rows: Sequence[Any]) -> list[str]:
  """What the columns are, and which subsets are not counted."""
  found = [r.missing for r in rows if r.missing is not None]
  if not found:
    return []
  nobody = [s for s, e in found[0].subsets.items() if all(m.subsets[s] is None for m in found)]
  lines = [
    "complete, on ...: the fused prediction with nothing but those modalities, in the rows that have "
    f"some of them; mean, worst: over the {len(found[0].subsets) - len(nobody)} subsets that have a "
    "score, the same for all rows. mean vs ...: the difference of that mean, paired. validation: what "
    "was chosen by."
  ]
  if nobody:
    said = ", ".join("+".join(s) for s in nobody)
    lines.append(f"n/a, since no row has all of it: {said}.")
  if any(m.curve for m in found):
    kind = info["missing"].get("kind")
    what = "a modality, shared out evenly" if kind == "even" else kind
    lines.append(
      f"Missing rates: that fraction of the test rows loses {what}, by one stored table a rate "
      "(missing_tables.npz)."
    )
  return lines


def sentence(score: Score, rows: Sequence[Any], baselines: Sequence[str]) -> str:
  """What each row gains over the first baseline on the mean over subsets; "" where nothing is known."""
  base = next(iter(baselines), None)
  found = {r.method: r.missing.differences.get(base) for r in rows if r.missing is not None}
  said = [f"{m} {_format.difference(d, score)}" for m, d in found.items() if d is not None]
  if not said:
    return ""
  points = " (points)" if score.share else ""
  return f"On the mean over subsets, less {base}{points}: {', '.join(said)}."


def curve_table(score: Score, rows: Sequence[Any]) -> list[list[str]]:
  """Header and rows of the scores over the missing rate, rate 0 first; [] without a curve."""
  found = [(r.method, r.missing) for r in rows if r.missing is not None and r.missing.curve]
  if not found:
    return []
  rates = list(found[0][1].curve)
  head = ["missing rate", "0", *(f"{rate:g}" for rate in rates)]
  cell = lambda e: _format.estimate(e, score, interval=False)
  at_zero = {r.method: r.test for r in rows}
  return [
    head,
    *([m, cell(at_zero[m]), *(cell(x.curve.get(rate)) for rate in rates)] for m, x in found),
  ]
