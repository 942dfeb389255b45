"""Learning curves as PNG: one panel per method."""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse import metrics
from mmfuse.metrics import Score
from mmfuse.report import _format
from mmfuse.report._figure import COLOURS, INK, new_figure, plain, save, tidy, wrap
from mmfuse.report._summary import FUSED

History = Sequence[Mapping[str, Any]]


def _runs(histories: Sequence[Any]) -> list[History]:
  """One history per seed; a single history counts as one seed."""
  if len(histories) and isinstance(histories[0], Mapping):
    return [histories]
  return list(histories)


def _series(history: History, field: str) -> tuple[np.ndarray, np.ndarray]:
  """(epochs, values) of a field, NaN where an epoch has none."""

  def value(entry):
    x = entry.get(field)
    x = x.get(FUSED) if isinstance(x, Mapping) else x
    return math.nan if x is None else float(x)

  epochs = [e.get("epoch", i + 1) for i, e in enumerate(history)]
  return np.asarray(epochs, float), np.asarray([value(e) for e in history], float)


def _limits(values: np.ndarray, sign: int = 1) -> tuple[float, float] | None:
  """Limits that show the bulk: an epoch that blew up must not flatten all others.

  `sign`: 1 where more is better, so that what blew up lies below; else -1.
  """
  values = sign * values[np.isfinite(values)]
  if values.size == 0:
    return None
  bulk, top = np.percentile(values, 15), values.max()
  bottom = max(values.min(), bulk - 2 * (top - bulk))
  room = 0.05 * (top - bottom) + 1e-4
  low, high = sorted((sign * (bottom - room), sign * (top + room)))
  return low, high


def _mean_curve(runs: Sequence[History], field: str) -> tuple[np.ndarray, np.ndarray]:
  """Mean over the seeds that reached an epoch."""
  found: dict[float, list[float]] = {}
  for history in runs:
    for epoch, value in zip(*_series(history, field)):
      if np.isfinite(value):
        found.setdefault(float(epoch), []).append(float(value))
  epochs = sorted(found)
  return np.asarray(epochs), np.asarray([np.mean(found[e]) for e in epochs])


def _panel(
  axes: Any, runs: Sequence[History], reference: Sequence[History], scale: float, sign: int
) -> None:
  if reference:
    epochs, mean = _mean_curve(reference, "validation")
    axes.plot(epochs, scale * mean, color="#AAAAAA", linewidth=2)
  for history in runs:
    epochs, values = _series(history, "validation")
    axes.plot(epochs, scale * values, color=COLOURS[0], linewidth=1, alpha=0.8)
    if np.isfinite(values).any():
      best = int(np.nanargmax(sign * values))
      axes.plot(epochs[best], scale * values[best], "o", color=COLOURS[5], markersize=3.5)


def curves(
  histories: Mapping[str, Sequence[Any]],
  path: str | os.PathLike,
  *,
  metric: str | Score | None = None,
  baseline: str = "joint",
) -> pathlib.Path:
  """Learning curves as PNG at `path`: one panel per method, one line per seed; returns the path.

  Upper: the validation score, a dot at each seed's first best epoch, the baseline's mean in grey;
  lower: the training loss. Validation axes are shared over the methods, loss axes are not (rules
  minimise different sums).

  Args:
    histories: {method: one list per seed of {"epoch", "validation", "train_loss"}, one an epoch}.
    path: of the file to write.
    metric: what "validation" holds, a name or a passport: "accuracy" is shown in percent; default
      None, a score of which more is better.
    baseline: the method drawn in grey into every other panel, default "joint".

  Raises ImportError with a sentence where matplotlib is absent, ValueError without histories.
  """
  shown = {m: _runs(h) for m, h in histories.items()}
  shown = {m: runs for m, runs in shown.items() if any(len(h) for h in runs)}
  if not shown:
    raise ValueError("there are no learning curves to draw")
  losses = any(np.isfinite(_series(h, "train_loss")[1]).any() for r in shown.values() for h in r)
  wide = min(len(shown), 4)
  blocks = math.ceil(len(shown) / wide)
  per_block = [2, 1] if losses else [1]
  figure = new_figure(max(4.5, 2.75 * wide), 0.7 + blocks * (2.9 if losses else 2.0))
  grid = figure.add_gridspec(blocks * len(per_block), wide, height_ratios=per_block * blocks)
  score = metric if isinstance(metric, Score) else metrics.score(metric or "score")
  scale = 100.0 if score.share else 1.0
  values = np.concatenate([_series(h, "validation")[1] for r in shown.values() for h in r])
  limits = _limits(scale * values, score.sign)
  for i, (method, runs) in enumerate(shown.items()):
    block, column = divmod(i, wide)
    axes = figure.add_subplot(grid[block * len(per_block), column])
    _panel(axes, runs, shown.get(baseline, []) if method != baseline else [], scale, score.sign)
    plain([axes.set_title(wrap(method, 28), fontsize=9, color=INK)])
    _finish_panel(axes, limits)
    bottom = axes
    if losses:
      bottom = figure.add_subplot(grid[block * 2 + 1, column], sharex=axes)
      axes.tick_params(labelbottom=False)
      for history in runs:
        bottom.plot(*_series(history, "train_loss"), color=COLOURS[2], linewidth=1, alpha=0.8)
      _finish_panel(bottom, None)
    if column == 0:
      unit = " (%)" if scale == 100.0 else ""
      axes.set_ylabel(f"validation\n{_format.name(score)}{unit}", fontsize=8, color=INK)
      if losses:
        bottom.set_ylabel("training\nloss", fontsize=8, color=INK)
    if i + wide >= len(shown):
      bottom.set_xlabel("epoch", fontsize=8, color=INK)
  _legend(figure, baseline if baseline in shown and len(shown) > 1 else None)
  return save(figure, path)


def _finish_panel(axes: Any, limits: tuple[float, float] | None) -> None:
  from matplotlib.ticker import MaxNLocator

  if limits is not None:
    axes.set_ylim(*limits)
  axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  axes.yaxis.set_major_locator(MaxNLocator(4))
  axes.grid(axis="y", color="#E5E5E5", linewidth=0.7)
  axes.set_axisbelow(True)
  tidy(axes)


def _legend(figure: Any, baseline: str | None) -> None:
  from matplotlib.lines import Line2D

  marks = [
    ("one seed", Line2D([], [], color=COLOURS[0])),
    ("first best epoch", Line2D([], [], color=COLOURS[5], marker="o", linestyle="", markersize=4)),
  ]
  if baseline is not None:
    marks.append((f"{baseline}, mean over seeds", Line2D([], [], color="#AAAAAA", linewidth=2)))
  box = figure.legend(
    [m for _, m in marks],
    [n for n, _ in marks],
    loc="outside upper center",
    ncols=3,
    fontsize=8,
    frameon=False,
  )
  plain(box.get_texts())
