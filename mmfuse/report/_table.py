"""The table as markdown, CSV and a terminal table."""

import csv as _csv
import io
import json
from typing import Any

from mmfuse.report._columns import Column, all_rows, columns, compared_with
from mmfuse.report._lines import LINEAR
from mmfuse.report._summary import Row, Summary, as_summary
from mmfuse.report._words import caption, notes, sentence

TERMINAL_WIDTH = 100


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
  extra = notes(summary)
  return text + ("\n" + "\n".join(f"- {n}" for n in extra) + "\n" if extra else "")


def _flat(row: Row, summary: Summary, further: list[str]) -> dict[str, Any]:
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
  for s in further:
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
  for m in summary.modalities:
    out[f"contribution_{m}"] = row.contribution.get(m)
  return out | {
    "learning_rates": " ".join(f"{r:.6g}" for r in row.learning_rates),
    "hyper": json.dumps(list(row.hyper)) if row.hyper else None,
    "edge": row.edge if row.runs else None,
    "spread": row.spread,
    "relative_step_time": row.relative_step_time,
    "seconds_per_step": row.seconds_per_step,
    "parameters": row.parameters,
    "gradient_evaluations": row.gradient_evaluations,
    "best_unimodal": row.best if row.runs else None,
    "unavailable": None,
  }


def csv(results: Any) -> str:
  """The table as comma-separated values in full precision, shares in 0..1, empty for nothing.

  `results` as in `markdown`. Intervals are given by their ends, `<column>_low` and `<column>_high`.
  """
  summary = as_summary(results)
  further = sorted({s for row in summary.rows for s in row.scores} - {summary.metric})
  rows = [_flat(row, summary, further) for row in all_rows(summary)]
  rows += [{"method": m, "unavailable": why} for m, why in summary.unavailable.items()]
  names = list(dict.fromkeys(name for row in rows for name in row))
  out = io.StringIO()
  writer = _csv.DictWriter(out, names, restval="", lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()


def _variants(summary: Summary) -> list[list[Column]]:
  """From everything a terminal may show to the least."""
  linear = f"vs {LINEAR}"  # only where there is room for all
  slim = lambda leave=linear, **options: [
    c
    for c in columns(summary, **options)
    if c.key in ("method", "fused", "rate", "time", *summary.modalities)
    or (c.key.startswith("vs ") and c.key != leave)
  ]
  return [
    slim(leave=""),
    slim(),
    slim(cost=False),
    slim(intervals=False),
    slim(intervals=False, cost=False),
    slim(heads=False),
    slim(heads=False, cost=False),
  ]


def _header(column: Column) -> str:
  """The header in lines of at most 9 characters: columns stay as narrow as their numbers."""
  lines: list[str] = []
  for word in column.header.split(" "):
    while len(word) > 9:
      lines, word = [*lines, word[:8] + "-"], word[8:]
    lines.append(word)
  return "\n".join(lines)


def _rich(summary: Summary, shown: list[Column]) -> Any:
  from rich import box
  from rich.table import Table
  from rich.text import Text

  absent = [f"{m}: n/a: {why}" for m, why in summary.unavailable.items()]
  said = "\n".join([*notes(summary), *absent])
  table = Table(
    box=box.SIMPLE_HEAD,
    show_edge=False,
    padding=(0, 1, 0, 0),
    pad_edge=False,
    header_style="bold",
    caption=Text(said) if said else None,
    caption_justify="left",
  )
  for c in shown:
    first = c.key == "method"
    table.add_column(
      Text(_header(c)),
      justify="left" if first else "right",
      overflow="fold",
      no_wrap=not first,
      min_width=min(26, max(len(c.cell(row)) for row in all_rows(summary)))
      if first and all_rows(summary)
      else None,
      max_width=26 if first else None,
    )
  for row in all_rows(summary):
    cells = [c.cell(row) for c in shown]
    table.add_row(*(Text(cell, style="bold" if cell.endswith("*") else "") for cell in cells))
  for m in summary.unavailable:
    table.add_row(Text(m), Text("n/a"))
  return table


def terminal(results: Any) -> Any:
  """A `rich.table.Table` that fits 100 columns: what does not fit is left to the files.

  In this order it gives up differences to `linear`, step time, the intervals of the modalities, the
  modalities. `results` as in `markdown`.
  Notes and the reasons of rows that could not run stand under the table; `caption`
  and `sentence` are the caller's to print.
  """
  from rich.console import Console

  summary = as_summary(results)
  console = Console(width=10 * TERMINAL_WIDTH)  # so that a table is measured as it wants to be
  for shown in _variants(summary):
    table = _rich(summary, shown)
    if console.measure(table).maximum <= TERMINAL_WIDTH:
      break
  return table
