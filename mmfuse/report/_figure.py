"""What both plots share: an off-screen figure (no global state), the palette, names and files."""

import functools
import io
import os
import pathlib
import re
from typing import Any

from mmfuse.report._records import write_whole
from mmfuse.report._statistics import Estimate

# Okabe and Ito's palette: told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
HATCHES = ("", "///", "...", "xxx")  # for the colours' second round and on
INK = "#333333"
_DPI = 130


def new_figure(width: float, height: float) -> Any:
  try:
    from matplotlib.figure import Figure
  except ImportError as error:
    raise ImportError("plots need matplotlib: pip install 'mmfuse[report]'") from error
  return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def save(figure: Any, path: str | os.PathLike) -> pathlib.Path:
  content = io.BytesIO()
  figure.savefig(content, format="png", facecolor="white", metadata={"Software": None})
  return write_whole(path, content.getvalue())


@functools.lru_cache(maxsize=1024)
def _other_fonts(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
  """(fonts here that have what the usual one lacks, characters that none has)."""
  from matplotlib import font_manager

  has = lambda path: font_manager.get_font(path).get_charmap()
  usual = has(font_manager.findfont(font_manager.FontProperties()))
  lost = {c for c in characters if not c.isspace() and ord(c) not in usual}
  families: list[str] = []
  for font in sorted(font_manager.fontManager.ttflist, key=lambda f: (f.name, f.fname)):
    if not lost:
      break
    upright = font.style == "normal" and font.weight in (400, "normal", "regular")
    if upright and "Last Resort" not in font.name:  # which has every character as a box
      found = {c for c in lost if ord(c) in has(font.fname)}
      families += [font.name] * bool(found)
      lost -= found
  return tuple(families), frozenset(lost)


def drawable(name: str) -> str:
  """A name whose characters that no font here has are code points: two names stay two."""
  lost = _other_fonts(frozenset(name))[1]
  return "".join(f"\\u{ord(c):04x}" if c in lost else c for c in name)


def plain(texts: Any) -> None:
  """A `$` in a name is a character, not mathematics; what the font lacks comes from another."""
  for text in texts:
    text.set_parse_math(False)
    if others := _other_fonts(frozenset(text.get_text()))[0]:
      text.set_fontfamily([*text.get_fontfamily(), *others])


def wrap(name: str, width: int) -> str:
  """Breaks a long name after `/ _ . : -` or a space where it can, anywhere where it must."""
  lines: list[str] = []
  line = ""
  for part in re.findall(r"[^/_.:\- ]*[/_.:\- ]?", drawable(name)):
    if line and len(line) + len(part) > width:
      lines, line = [*lines, line], ""
    line += part
    while len(line) > width:
      lines, line = [*lines, line[:width]], line[width:]
  return "\n".join([*lines, line] if line else lines)


def tidy(axes: Any) -> None:
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(labelsize=8, colors=INK)


def interval_ends(e: Estimate, share: bool) -> tuple[float, float]:
  """The ends of an interval, (mean, mean) where there is none; a share's stay within 0 and 1."""
  half = e.half or 0.0
  low, high = e.mean - half, e.mean + half
  return (min(max(low, 0.0), e.mean), max(min(high, 1.0), e.mean)) if share else (low, high)
