"""The table as markdown and CSV."""

import csv as _csv
import io
import json
from typing import Any

from mmfuse.report._columns import all_rows, columns, compared_with
from mmfuse.report._missing import SUMMARIES, curve_table, label
from mmfuse.report._summary import Row, Summary, as_summary
from mmfuse.report._words import caption, notes, sentence


def _escape(text: str) -> str:
  return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _line(cells: list[str]) -> str:
  return "| " + " | ".join(cells) + " |"


def markdown(results: Any) -> str:
  """Caption, table, sentence and notes as markdown; rows that could not run come last, with why.

  `results` is a `Summary`, or {name: result of train.fit}, which is summarised with the default
  baselines. Raises TypeError for anything else.
  """
  summary = as_summary(results)
  shown = columns(summary)
  lines = [
    _line([_escape(c.header) for c in shown]),
    "|" + "|".join("---" if c.key == "method" else "---:" for c in shown) + "|",
  ]
  lines += [_line([_escape(c.cell(row)) for c in shown]) for row in all_rows(summary)]
  blank = [""] * (len(shown) - 2)
  lines += [
    _line([_escape(m), _escape(f"n/a: {why}"), *blank]) for m, why in summary.unavailable.items()
  ]
  text = f"{caption(summary)}\n\n" + "\n".join(lines) + f"\n\n{sentence(summary)}\n"
  if curve := curve_table(summary.score, summary.rows):
    head, *body = curve
    rule = "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|"
    text += (
      "\n" + "\n".join([_line(head), rule, *(_line(list(map(_escape, r))) for r in body)]) + "\n"
    )
  extra = notes(summary)
  return text + ("\n" + "\n".join(f"- {n}" for n in extra) + "\n" if extra else "")


def _flat(row: Row, summary: Summary) -> dict[str, Any]:
  def spread(name, e):
    if e is None:
      return {name: None, f"{name}_low": None, f"{name}_high": None}
    known = e.half is not None
    return {
      name: e.mean,
      f"{name}_low": e.mean - e.half if known else None,
      f"{name}_high": e.mean + e.half if known else None,
    }

  out = {
    "method": row.method,
    "n": row.test.n if row.test is not None and row.runs else None,
    "runs": row.runs or None,
    "metric": summary.metric,
    **spread(summary.split, row.test),
  }
  for m in summary.modalities:
    out |= spread(f"{summary.split}_{m}", row.unimodal.get(m))
  for s in summary.further:
    out |= spread(f"{summary.split}_{s}", row.scores.get(s))
  if summary.split != "validation":
    out |= spread("validation", row.validation)
  for base in compared_with(summary):
    d = row.differences.get(base)
    out |= spread(f"vs_{base}", d)
    out |= {
      f"vs_{base}_p": d and d.p,
      f"vs_{base}_p_holm": d and d.p_holm,
      f"vs_{base}_significant": d and d.significant,
    }
  if row.missing is not None:
    for name in SUMMARIES:
      out |= spread(name, row.missing.over[name])
    for base, d in row.missing.differences.items():
      out |= spread(f"mean_vs_{base}", d)
    for subset, e in row.missing.subsets.items():
      out |= spread(label(subset), e)
    for rate, e in row.missing.curve.items():
      out |= spread(f"missing_{rate:g}", e)
  for m in summary.modalities:
    out[f"contribution_{m}"] = row.contribution.get(m)
  return out | {
    "learning_rates": " ".join(f"{r:.6g}" for r in row.learning_rates),
    "hyper": json.dumps(list(row.hyper)) if row.hyper else None,
    "edge": row.edge if row.runs else None,
    "trials": row.trials,
    "spread": row.spread,
    "relative_step_time": row.relative_step_time,
    "seconds_per_step": row.seconds_per_step,
    "parameters": row.parameters,
    "gradient_evaluations": row.gradient_evaluations,
    "best_unimodal": row.best if row.runs else None,
    "best_fused": row.best_fused if row.runs else None,
    "unavailable": None,
  }


def csv(results: Any) -> str:
  """The table as comma-separated values in full precision, shares in 0..1, empty for nothing.

  `results` as in `markdown`. Intervals are given by their ends, `<column>_low` and `<column>_high`.
  """
  summary = as_summary(results)
  rows = [_flat(row, summary) for row in all_rows(summary)]
  rows += [{"method": m, "unavailable": why} for m, why in summary.unavailable.items()]
  names = list(dict.fromkeys(name for row in rows for name in row))
  out = io.StringIO()
  writer = _csv.DictWriter(out, names, restval="", lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()
