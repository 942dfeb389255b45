"""Precision over recall of a retrieval: a panel per direction, a line per method; CSV beside it."""

import csv as _csv
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmfuse.report._figure import COLOURS, INK, new_figure, plain, save, tidy, wrap

_STYLES = ("-", "--", ":", "-.")  # for the colours' second round and on


class RecallCurves(NamedTuple):
  """Precision at levels of recall."""

  levels: Sequence[float]  # of recall, [L]
  rows: Mapping[str, Mapping[str, Any]]  # {method: {direction: precision [L], mean over its runs}}
  chance: Mapping[str, float]  # {direction: the share of relevant rows, a random order's precision}

  @property
  def directions(self) -> list[str]:
    """Of any row, in order."""
    return list(dict.fromkeys([*self.chance, *(d for r in self.rows.values() for d in r)]))


def precision_recall_csv(curves: RecallCurves) -> str:
  """Columns method, direction, recall, precision; random ranking last."""
  out = io.StringIO()
  writer = _csv.writer(out, lineterminator="\n")
  writer.writerow(["method", "direction", "recall", "precision"])
  for method, found in curves.rows.items():
    for direction, values in found.items():
      writer.writerows(
        [method, direction, f"{level:g}", f"{value:.6g}"]
        for level, value in zip(curves.levels, values)
      )
  for direction, value in curves.chance.items():
    writer.writerows(
      ["random ranking", direction, f"{level:g}", f"{value:.6g}"] for level in curves.levels
    )
  return out.getvalue()


def precision_recall(curves: RecallCurves, path: str | os.PathLike) -> pathlib.Path:
  """A panel per direction with a line per method as PNG at `path`; returns the path.

  Precision is the best at that recall or more, mean over queries and runs; the dashed line is a random
  order's. Raises ImportError with a sentence where matplotlib is absent, ValueError without curves.
  """
  names = curves.directions
  if not names or not curves.rows:
    raise ValueError("there are no precision-recall curves to draw")
  wide = min(len(names), 3)
  high = math.ceil(len(names) / wide)
  figure = new_figure(max(4.5, 3.1 * wide), 0.8 + 2.5 * high)
  handles: dict[str, Any] = {}
  for i, direction in enumerate(names):
    axes = figure.add_subplot(high, wide, i + 1)
    for j, (method, found) in enumerate(curves.rows.items()):
      if direction in found:
        style = {"color": COLOURS[j % len(COLOURS)], "linestyle": _STYLES[j // len(COLOURS) % 4]}
        (line,) = axes.plot(curves.levels, [100 * v for v in found[direction]], **style)
        handles.setdefault(method, line)
    if direction in curves.chance:
      at = 100 * curves.chance[direction]
      handles.setdefault("random ranking", axes.axhline(at, color="#AAAAAA", linestyle="--"))
    plain([axes.set_title(wrap(direction, 34), fontsize=9, color=INK)])
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 100)
    tidy(axes)
    if i % wide == 0:
      axes.set_ylabel("precision (%)", fontsize=8, color=INK)
    if i + wide >= len(names):
      axes.set_xlabel("recall", fontsize=8, color=INK)
  box = figure.legend(
    list(handles.values()),
    [wrap(name, 30) for name in handles],
    loc="outside upper center",
    fontsize=8,
    ncols=min(len(handles), 4),
    frameon=False,
  )
  plain(box.get_texts())
  return save(figure, path)
