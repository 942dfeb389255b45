"""Maps of classes over the pictures that they are of, as PNG."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mmfuse.report._figure import COLOURS, INK, new_figure, plain, save

CELL = 0.9  # inches of a picture
OPACITY = 0.45
RGB = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS[1:]])


def tinted(grey: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """[H, W, 3] in [0, 1]: grey values over their own range, in colour where the class is above 0.

  Args:
    grey: [H, W].
    classes: int [H, W]; 0 and what is void (-1) stay grey, void places darker.
  """
  low, high = float(grey.min()), float(grey.max())
  picture = np.repeat(((grey - low) / max(high - low, 1e-6))[..., None], 3, -1)
  picture = np.where((classes < 0)[..., None], 0.5 * picture, picture)
  colour = RGB[np.maximum(classes - 1, 0) % len(RGB)]
  mixed = (1 - OPACITY) * picture + OPACITY * colour
  return np.where((classes > 0)[..., None], mixed, picture)


def overlays(
  lines: Sequence[tuple[str, Sequence[np.ndarray]]],
  label: np.ndarray,
  said: np.ndarray,
  path: str | os.PathLike,
  class_names: Sequence[str] = (),
) -> pathlib.Path:
  """A line for each (words, pictures [H, W]), then two over the first: truth and prediction.

  Raises ImportError with a sentence where matplotlib is absent, ValueError without a picture.

  Args:
    lines: the modalities, as many pictures in each.
    label: int [N, H, W], -1 where a place does not count.
    said: int [N, H, W]; void places of `label` are void in it too.
    path: of the PNG.
    class_names: for the line under the picture; default none.

  Returns the path.
  """
  if not lines or not len(lines[0][1]):
    raise ValueError("there is no picture to show")
  first, count = lines[-1][1], len(lines[0][1])
  nothing = np.zeros(np.shape(label)[1:], int)
  rows = [(words, [tinted(p, nothing) for p in pictures]) for words, pictures in lines]
  shown = np.where(label < 0, -1, said)
  for words, classes in (("truth", label), ("said", shown)):
    rows.append((words, [tinted(p, c) for p, c in zip(first, classes)]))
  figure = new_figure(1.2 + CELL * count, 0.6 + CELL * len(rows))
  grid = figure.subplots(len(rows), count, squeeze=False)
  texts = []
  for axes, (words, pictures) in zip(grid, rows, strict=True):
    for cell, picture in zip(axes, pictures):
      cell.imshow(picture)
    for cell in axes:
      cell.set_axis_off()
    place = {"transform": axes[0].transAxes, "ha": "right", "va": "center"}
    texts.append(axes[0].text(-0.08, 0.5, words, fontsize=8, color=INK, **place))
  if class_names[1:]:
    named = ", ".join(class_names[1:8]) + (", ..." if len(class_names) > 8 else "")
    texts.append(figure.supxlabel(f"in colour: class {named}", fontsize=7, color=INK))
  plain(texts)
  return save(figure, path)
