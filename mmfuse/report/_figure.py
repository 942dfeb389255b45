"""What both plots share: an off-screen figure (no global state), the palette, names and files."""

import io
import os
import pathlib
import re
from typing import Any

from mmfuse.report._records import write_whole

# Okabe and Ito's palette: told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
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


def plain(texts: Any) -> None:
  """A `$` in a name is a character, not mathematics."""
  for text in texts:
    text.set_parse_math(False)


def wrap(name: str, width: int) -> str:
  """Breaks a long name after `/ _ . : -` or a space where it can, anywhere where it must."""
  lines: list[str] = []
  line = ""
  for part in re.findall(r"[^/_.:\- ]*[/_.:\- ]?", name):
    if line and len(line) + len(part) > width:
      lines, line = [*lines, line], ""
    line += part
    while len(line) > width:
      lines, line = [*lines, line[:width]], line[width:]
  return "\n".join([*lines, line] if line else lines)


def tidy(axes: Any) -> None:
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(labelsize=8, colors=INK)
