"""What rows differ by over subsets of modalities: paired over seeds, from a comparison's records."""

from collections.abc import Sequence

from experiments import _common
from mmfuse import metrics, report

OVER = {"mean": "mean over subsets", "worst": "worst subset", "complete": "complete"}


def scores(records: Sequence[dict]) -> dict[str, dict[str, list[float]]]:
  """{row: {"mean", "worst", "complete": percent, a value per seed in their order}}."""
  found: dict[str, dict[str, list[float]]] = {}
  for record in sorted(records, key=lambda r: r["seed"]):
    of = {tuple(e["modalities"]): e["score"] for e in record["subsets"]}
    over = metrics.over_subsets(of)
    mine = found.setdefault(record["method"], {name: [] for name in OVER})
    for name in OVER:
      mine[name].append(100 * over[name])
  return found


def contrast_table(records: Sequence[dict], pairs: Sequence[tuple[str, str]]) -> str:
  """One line a pair of rows that are there; p after Holm over the lines of the first column."""
  found = scores(records)
  there = [pair for pair in pairs if set(pair) <= set(found)]
  gaps = {over: [report.paired(found[a][over], found[b][over]) for a, b in there] for over in OVER}
  p = report.holm({str(i): d.p for i, d in enumerate(gaps["mean"]) if d and d.p is not None})
  lines = [
    [
      f"{a} less {b}",
      "n/a",
      *(_common.figure(gaps[over][i], "+") for over in OVER),
      f"{p[str(i)]:.2g}" if str(i) in p else "n/a",
    ]
    for i, (a, b) in enumerate(there)
  ]
  return _common.table(["points", "paper", *OVER.values(), "Holm p (mean)"], lines)
