"""One self-contained page: caption, sentence, table, plots, command, versions, fingerprint."""

import base64
import html as _html
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from mmfuse.report._columns import Column, all_rows, columns
from mmfuse.report._records import write_whole
from mmfuse.report._summary import Row, Summary, as_summary
from mmfuse.report._words import caption, notes, sentence

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2228; --soft: #5b6570; --line: #d9dee3; --paper: #fff;
  --stripe: #f5f7f9; --up: #0a6b3d; --down: #a12622; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #39414a;
  --paper: #15191d; --stripe: #1d2228; --up: #6fd3a0; --down: #f0938c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.finding { font-size: 1.1rem; border-left: 4px solid var(--soft); padding: .2rem 0 .2rem .9rem; }
.caption, .notes, footer { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); }
td.wide { white-space: normal; text-align: left; }
tbody tr:nth-child(even) td { background: var(--stripe); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td.up { color: var(--up); font-weight: 600; } td.down { color: var(--down); font-weight: 600; }
figure { margin: 0 0 1.5rem; } figcaption { color: var(--soft); font-size: .9rem; }
img { max-width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
pre { overflow-x: auto; background: var(--stripe); padding: .7rem .9rem; border-radius: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
"""

# Rows without a value stay at the end whichever way a column is sorted.
_SCRIPT = """
document.querySelectorAll('th button').forEach(button => button.addEventListener('click', () => {
  const head = button.closest('th'), body = head.closest('table').tBodies[0];
  const up = head.getAttribute('aria-sort') === 'descending';
  head.parentNode.querySelectorAll('th').forEach(th => th.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const value = row => row.cells[head.cellIndex]?.dataset.value ?? '';
  [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === '' || y === '') return (x === '') - (y === '');
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return up ? order : -order;
  }).forEach(row => body.append(row));
}));
"""


def _text(value: Any) -> str:
  return _html.escape(str(value), quote=True)


def _cell(column: Column, row: Row, sign: int) -> str:
  """`sign`: that of the score, which says what is coloured as better."""
  value, hint, kind = column.value(row), column.hint(row), ""
  if column.key.startswith("vs "):
    d = row.differences.get(column.key.removeprefix("vs "))
    if d is not None and d.significant:
      kind = ' class="up"' if sign * d.mean > 0 else ' class="down"'
  key = "" if value is None else f' data-value="{_text(value)}"'
  title = f' title="{_text(hint)}"' if hint else ""
  return f"<td{kind}{key}{title}>{_text(column.cell(row))}</td>"


def _table(summary: Summary) -> str:
  shown = columns(summary, further=True)
  head = "".join(
    f'<th scope="col"><button type="button">{_text(c.header)}</button></th>' for c in shown
  )
  body = ["".join(_cell(c, row, summary.score.sign) for c in shown) for row in all_rows(summary)]
  body += [
    f'<td data-value="{_text(m)}">{_text(m)}</td><td class="wide" colspan="{len(shown) - 1}">'
    f"n/a: {_text(why)}</td>"
    for m, why in summary.unavailable.items()
  ]
  rows = "\n".join(f"<tr>{cells}</tr>" for cells in body)
  return (
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>'
    "</table></div>"
  )


def _named(images: Any) -> list[tuple[str, pathlib.Path]]:
  if isinstance(images, Mapping):
    return [(str(title), pathlib.Path(path)) for title, path in images.items()]
  return [(pathlib.Path(p).stem.replace("_", " "), pathlib.Path(p)) for p in images]


def _figure(title: str, path: pathlib.Path) -> str:
  if not path.is_file():
    raise FileNotFoundError(f"no image at {path} for the page")
  content = path.read_bytes()
  if not content.startswith(b"\x89PNG"):
    raise ValueError(f"{path} is not a PNG image")
  data = base64.b64encode(content).decode()
  return (
    f"<h2>{_text(title)}</h2>\n<figure>"
    f'<img alt="{_text(title)}" src="data:image/png;base64,{data}"></figure>'
  )


def _facts(summary: Summary) -> str:
  facts = {
    "date": summary.info.get("date"),
    "data fingerprint": summary.fingerprint,
    **summary.versions,
  }
  rows = "".join(
    f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items() if v is not None
  )
  command = summary.info.get("command")
  shell = f"<h2>Command</h2>\n<pre>{_text(command)}</pre>\n" if command else ""
  return shell + (f"<h2>Data and versions</h2>\n<dl>{rows}</dl>" if rows else "")


def html(
  results: Any,
  images: Mapping[str, str | os.PathLike] | Iterable[str | os.PathLike],
  path: str | os.PathLike,
) -> pathlib.Path:
  """Writes one page that needs no other file and no network; returns its path.

  Args:
    results: as in `markdown`.
    images: {title: PNG file}, or PNG files (the file's name is the title); embedded.
    path: of the page; written whole or not at all.

  Raises:
    FileNotFoundError, ValueError: an image is not there, or is no PNG.
  """
  summary = as_summary(results)
  title = str(summary.info.get("name") or "Comparison of methods")
  lines = "".join(f"<li>{_text(n)}</li>" for n in notes(summary))
  parts = [
    f"<h1>{_text(title)}</h1>",
    f'<p class="finding">{_text(sentence(summary))}</p>',
    _table(summary),
    f'<p class="caption">{_text(caption(summary))}</p>',
    f'<ul class="notes">{lines}</ul>' if lines else "",
    *(_figure(name, file) for name, file in _named(images)),
    _facts(summary),
  ]
  page = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    + "\n".join(p for p in parts if p)
    + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
  )
  return write_whole(path, page.encode())
