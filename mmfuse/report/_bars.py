"""Per-modality bars with intervals, as PNG."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mmfuse.report import _format
from mmfuse.report._columns import majority_row, marked
from mmfuse.report._figure import (
  COLOURS,
  HATCHES,
  INK,
  interval_ends,
  new_figure,
  plain,
  save,
  tidy,
  wrap,
)
from mmfuse.report._summary import Row, Summary, as_summary
from mmfuse.report._units import FUSED, UNIMODAL


def _bars_of(row: Row, modalities: Sequence[str]) -> list[tuple[str, Any]]:
  """[(head, estimate)] to draw: a single modality's own prediction is that modality's bar."""
  if row.method.startswith(UNIMODAL) and row.method.removeprefix(UNIMODAL) in modalities:
    found = [(row.method.removeprefix(UNIMODAL), row.test)]
  else:
    found = [(FUSED, row.test), *((m, row.unimodal.get(m)) for m in modalities)]
  return [(head, e) for head, e in found if e is not None]


def bars(results: Any, path: str | os.PathLike) -> pathlib.Path:
  """A bar per method and head (fused, then each modality) with 95 % t intervals, as PNG at `path`.

  `results` as in `markdown`. Dashed lines mark the constant predictor and `linear`. The axis of a
  share goes from 0 to 100 %, where its intervals end too. Returns the path. Raises ImportError with a
  sentence where matplotlib is absent, ValueError without rows.
  """
  summary: Summary = as_summary(results)
  drawn = [(r, b) for r in summary.rows if (b := _bars_of(r, summary.modalities))]
  if not summary.rows:
    raise ValueError("there are no rows to draw")
  share = summary.score.share
  scale = 100.0 if share else 1.0
  heads = (FUSED, *summary.modalities)
  colour = {h: COLOURS[(i - 1) % len(COLOURS)] if i else INK for i, h in enumerate(heads)}
  hatch = {h: HATCHES[max(i - 1, 0) // len(COLOURS) % len(HATCHES)] for i, h in enumerate(heads)}
  names = [wrap(marked(r), 34) for r, _ in drawn]
  # A unit is a bar, and a line of a name needs most of one.
  spare = [max(0.0, 0.9 * (n.count("\n") + 1) - len(b)) for n, (_, b) in zip(names, drawn)]
  lines = sum(len(b) for _, b in drawn) + sum(spare)
  figure = new_figure(9.0, 1.3 + 0.17 * lines + 0.12 * len(drawn))
  axes = figure.add_subplot()
  handles: dict[str, Any] = {}
  ticks, y, ends = [], 0.0, [0.0]
  for (_, found), free in zip(drawn, spare):
    y += free / 2
    ticks.append(y + (len(found) - 1) / 2)
    for head, e in found:
      low, high = (scale * end for end in interval_ends(e, share))
      mean = scale * e.mean
      handles.setdefault(
        head,
        axes.barh(
          y,
          mean,
          0.88,
          color=colour[head],
          hatch=hatch[head],
          xerr=[[mean - low], [high - mean]] if e.half else None,
          error_kw={"ecolor": "#777777", "elinewidth": 1.1, "capsize": 2},
        ),
      )
      end = max(high, 0.0)
      axes.annotate(
        _format.number(e.mean, summary.score),
        (end, y),
        (3, 0),
        va="center",
        fontsize=7,
        textcoords="offset points",
        color=INK,
      )
      ends += [end, low]
      y += 1.0
    y += free / 2 + 0.7
  _finish_bars(axes, summary, dict(zip(ticks, names)), scale, ends)
  if not drawn:
    axes.set_title("no row has a finite score", fontsize=9, color=INK)
    return save(figure, path)
  shown = [h for h in heads if h in handles]
  words = [wrap(h, 30) for h in shown]
  longest = max(len(line) for word in words for line in word.split("\n"))
  box = figure.legend(
    [handles[h] for h in shown],
    words,
    loc="outside upper center",
    fontsize=8,
    ncols=min(len(shown), 6, max(1, 110 // (longest + 7))),  # about 110 characters fit in a line
    frameon=False,
  )
  plain(box.get_texts())
  return save(figure, path)


def _finish_bars(
  axes: Any, summary: Summary, names: dict[float, str], scale: float, ends: list[float]
) -> None:
  axes.set_yticks(list(names), list(names.values()))
  plain(axes.get_yticklabels())
  axes.invert_yaxis()
  axes.margins(y=0.01)
  if scale == 100.0:  # the numbers at the ends of the bars may stand beyond the axis
    axes.set_xlim(0, 100)
  else:
    ends = [*ends, *(scale * x.test.mean for x in summary.lines[:1] if x.test is not None)]
    room = 0.08 * (max(ends) - min(ends) or 1.0)
    axes.set_xlim(min(min(ends) - (room if min(ends) < 0 else 0), 0), max(ends) + room)
  marked = [(majority_row(summary), "#B00020"), *((x, "#00699B") for x in summary.lines[:1])]
  for height, (constant, colour) in enumerate(marked):
    if constant is None or constant.test is None:
      continue
    at = scale * constant.test.mean
    axes.axvline(at, color=colour, linestyle="--", linewidth=1)
    axes.annotate(
      constant.method,
      (at, 1),
      (2, 2 + 8 * height),  # one above the other, where they are close
      fontsize=7,
      color=colour,
      xycoords=("data", "axes fraction"),
      textcoords="offset points",
    )
  unit = " (%)" if scale == 100.0 else ""
  axes.set_xlabel(f"{summary.split} {_format.name(summary.score)}{unit}", fontsize=9, color=INK)
  axes.axvline(0, color=INK, linewidth=0.8)
  tidy(axes)
