"""The score over the missing rate, as PNG."""

import os
import pathlib
from typing import Any

from mmfuse.report import _format
from mmfuse.report._figure import COLOURS, INK, interval_ends, new_figure, plain, save, tidy, wrap
from mmfuse.report._summary import Summary, as_summary

_MOST_BARS = 12  # rows, beyond which intervals hide the lines
_DASHES = ("-", "--", ":", "-.")  # for the colours' second round and on


def missing_curve(results: Any, path: str | os.PathLike) -> pathlib.Path:
  """A line per row: the mean score over the fraction of test rows that lose a modality; returns the path.

  Bars are 95 % t intervals over units, where there are few rows. At 0 stands the score on the rows as
  they are. `results` as in `markdown`. Raises ImportError with a sentence where matplotlib is absent,
  ValueError without a curve.
  """
  summary: Summary = as_summary(results)
  rows = [(r, m) for r in summary.rows if (m := r.missing) is not None and m.curve]
  if not rows:
    raise ValueError("no row has scores over a missing rate")
  share = summary.score.share
  scale = 100.0 if share else 1.0
  few = len(rows) <= _MOST_BARS
  figure = new_figure(8.0, max(4.0, 0.9 + 0.18 * len(rows)))
  axes = figure.add_subplot()
  for i, (row, missing) in enumerate(rows):
    points = {0.0: row.test, **missing.curve}
    known = {rate: e for rate, e in points.items() if e is not None}
    sides = [
      (e.mean - low, high - e.mean)
      for e in known.values()
      for low, high in [interval_ends(e, share)]
    ]
    axes.errorbar(
      list(known),
      [scale * e.mean for e in known.values()],
      yerr=[[scale * x for x in side] for side in zip(*sides)] if few else None,
      color=COLOURS[i % len(COLOURS)],
      linestyle=_DASHES[i // len(COLOURS) % len(_DASHES)],
      marker="o",
      markersize=3,
      linewidth=1.2,
      elinewidth=0.7,
      capsize=2,
      label=wrap(row.method, 30),
    )
  unit = " (%)" if scale == 100.0 else ""
  axes.set_ylabel(f"{summary.split} {_format.name(summary.score)}{unit}", fontsize=9, color=INK)
  axes.set_xlabel(f"fraction of rows that lose {_what(summary)}", fontsize=9, color=INK)
  axes.grid(axis="y", color="#E5E5E5", linewidth=0.7)
  axes.set_axisbelow(True)
  tidy(axes)
  box = figure.legend(loc="outside right upper", fontsize=7, frameon=False)
  plain([*box.get_texts(), axes.xaxis.label])
  return save(figure, path)


def _what(summary: Summary) -> str:
  kind = str((summary.info.get("missing") or {}).get("kind", "even"))
  return "a modality" if kind == "even" else kind
