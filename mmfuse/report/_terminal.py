"""The table for a terminal: folded where it is too narrow; what has no column is named under it."""

from collections.abc import Callable, Sequence
from typing import Any

from mmfuse.report._columns import Column, all_rows, columns
from mmfuse.report._summary import Summary, as_summary
from mmfuse.report._words import notes

TERMINAL_WIDTH = 100  # where nothing says its own
_NAME_WIDTH = 20, 30  # cells that a method's name is never squeezed below, and at most has
_WORD_WIDTH = 10  # most cells of a word of a header


def terminal(results: Any, width: int = TERMINAL_WIDTH) -> Any:
  """A `rich` renderable for `width` columns: the table, then the notes.

  Where one table is too wide, step time is given up; where that is not enough, nothing is, and the
  columns go into several tables, the modalities last. A line under the table names all that has no
  column. `results` as in `markdown`. The reasons of rows that could not run stand among the notes;
  `caption` and `sentence` are the caller's to print.
  """
  from rich.console import Group
  from rich.text import Text

  summary = as_summary(results)
  every = columns(summary)
  tables = _layout(summary, [c for c in every if c.key], width)
  missing = [c.header for c in every if not any(c is shown for t in tables for shown in t)]
  absent = [f"{m}: n/a: {why}" for m, why in summary.unavailable.items()]
  said = [f"Not shown: {', '.join(missing)} (see table.md).", *notes(summary), *absent]
  drawn = [_rich(summary, t, width, whole=t is tables[0]) for t in tables]
  return Group(*(part for table in drawn for part in (table, Text(""))), Text("\n".join(said)))


def _layout(summary: Summary, shown: Sequence[Column], width: int) -> list[list[Column]]:
  """The columns of each table; the method's name comes first in all."""
  fits = lambda part: _fits(summary, part, width)
  for single in (list(shown), [c for c in shown if c.key != "time"]):
    if fits(single):
      return [single]
  method, *rest = shown
  ordered = sorted(rest, key=lambda c: c.key == "modality")  # stable
  main = [c for c in ordered if c.key != "modality"]
  first = max((n for n in range(1, len(main) + 1) if fits([method, *main[:n]])), default=1)
  tables = [ordered[:first], *_equal_parts(ordered[first:], lambda part: fits([method, *part]))]
  return [[method, *part] for part in tables]


def _equal_parts(items: list, fits: Callable[[list], bool]) -> list[list]:
  """In the fewest parts, of equal size, that fit; single ones at last."""
  for count in range(1, len(items) + 1):
    size = -(-len(items) // count)
    parts = [items[i : i + size] for i in range(0, len(items), size)]
    if size == 1 or all(map(fits, parts)):
      return parts
  return []


def _fits(summary: Summary, shown: Sequence[Column], width: int) -> bool:
  """Whether it does once names are broken between their words."""
  from rich.console import Console

  wide = Console(width=10_000, height=1)  # without a height, a dumb terminal has 80 columns
  return wide.measure(_rich(summary, shown, width)).minimum <= width


def _header(column: Column) -> str:
  """The header, a word a line, long words in pieces: columns stay as narrow as their numbers."""
  from rich.cells import cell_len, chop_cells

  lines: list[str] = []
  for word in column.header.split():
    if cell_len(word) > _WORD_WIDTH:
      *pieces, word = chop_cells(word, _WORD_WIDTH - 1)
      lines += [f"{piece}-" for piece in pieces]
    lines.append(word)
  return "\n".join(lines)


def _widest(lines: Sequence[str]) -> int:
  from rich.cells import cell_len

  return max(map(cell_len, lines), default=1)


def _rich(summary: Summary, shown: Sequence[Column], width: int, whole: bool = True) -> Any:
  """One table; with `whole` all rows, else those that have a value in it."""
  from rich import box
  from rich.table import Table
  from rich.text import Text

  table = Table(
    box=box.SIMPLE_HEAD,
    show_edge=False,
    padding=(0, 1, 0, 0),
    pad_edge=False,
    header_style="bold",
  )
  method, *rest = shown
  rows = [r for r in all_rows(summary) if whole or any(c.value(r) is not None for c in rest)]
  absent = list(summary.unavailable) if whole else []
  names = [*(method.cell(row) for row in rows), *absent]
  least, most = (min(size, width // 2) for size in _NAME_WIDTH)
  narrow = max(min(least, _widest(names)), _widest([word for n in names for word in n.split()]))
  table.add_column(_header(method), overflow="fold", min_width=min(narrow, most), max_width=most)
  for c in rest:
    wide = _widest([*_header(c).split("\n"), *(c.cell(row) for row in rows)])
    table.add_column(Text(_header(c)), justify="right", width=wide)
  for row, name in zip(rows, names):
    cells = [name, *(c.cell(row) for c in rest)]
    table.add_row(*(Text(cell, style="bold" if cell.endswith("*") else "") for cell in cells))
  for name in absent:
    table.add_row(Text(name), Text("n/a"))
  return table
