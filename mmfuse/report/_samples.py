"""A grid of pictures, real and generated, as PNG."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mmfuse.report._figure import INK, new_figure, plain, save

CELL = 0.55  # inches of a picture


def samples(
  lines: Sequence[tuple[str, Sequence[np.ndarray]]], path: str | os.PathLike
) -> pathlib.Path:
  """A line for each (words, pictures [H, W] or [H, W, 3]); returns the path.

  Grey values run over the range of their line; colours are clipped to [0, 1]. Raises ImportError with a
  sentence where matplotlib is absent, ValueError without a picture.

  Args:
    lines: what is shown, as many pictures in each.
    path: of the PNG.
  """
  if not lines or not lines[0][1]:
    raise ValueError("there is no picture to show")
  columns = max(len(pictures) for _, pictures in lines)
  figure = new_figure(2.0 + CELL * columns, 0.4 + CELL * len(lines))
  grid = figure.subplots(len(lines), columns, squeeze=False)
  texts = []
  for axes, (words, pictures) in zip(grid, lines, strict=True):
    low, high = (float(f(p)) for f, p in ((np.min, pictures[0]), (np.max, pictures[0])))
    for p in pictures:
      low, high = min(low, float(np.min(p))), max(high, float(np.max(p)))
    for cell, p in zip(axes, pictures):
      shown = np.clip(p, 0.0, 1.0) if np.ndim(p) == 3 else p
      cell.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    for cell in axes:
      cell.set_axis_off()
    texts.append(
      axes[0].text(
        -0.2,
        0.5,
        words,
        transform=axes[0].transAxes,
        ha="right",
        va="center",
        fontsize=7,
        color=INK,
      )
    )
  plain(texts)
  return save(figure, path)
