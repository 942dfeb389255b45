"""The live line: what is being trained, how far it is, and when it will be done."""

import sys
import time
from typing import Any

from mmfuse.report._format import plural
from mmfuse.tree import FUSED


class Progress:
  """A `rich` progress bar on a terminal, one line per row elsewhere."""

  def __init__(self, rows: int, runs: int, epochs: int):
    self.rows, self.runs, self.epochs = rows, max(1, runs), epochs
    self.live = sys.stderr.isatty()
    self.bar: Any = None
    self.done = 0  # rows
    self.began = time.monotonic()

  def __enter__(self):
    if self.live:
      from rich.console import Console
      from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
      )

      columns = (BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
      self.bar = Progress(
        TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True
      )
      self.bar.start()
      self.task = self.bar.add_task("starting", total=self.runs * self.epochs)
    return self

  def __exit__(self, *error):
    if self.bar is not None:
      self.bar.stop()

  def epoch(self, row: Any, fold: int | None, entry: dict) -> None:
    """Called after every epoch of every run."""
    if self.bar is None:
      return
    heads = entry["validation"] or {}
    score = next(iter(heads.get(FUSED, {}).values()), float("nan"))
    rate = "" if entry["learning_rate"] is None else f" lr {entry['learning_rate']:.3g}"
    where = "" if fold is None else f" fold {fold}"
    epoch = f"epoch {entry['epoch'] + 1}/{entry['epochs']} validation {score:.3f}"
    said = f"{row.name}{where} seed {entry['seed']}{rate} {epoch}"
    self.bar.update(self.task, advance=1, description=said)

  def row_done(self, row: Any, how: str = "trained") -> None:
    """A row is complete, or has failed."""
    self.done += 1
    if self.bar is None:
      spent = duration(time.monotonic() - self.began)
      print(f"{row.name}: {how} ({self.done} of {plural(self.rows, 'row')}, {spent})", flush=True)


def duration(seconds: float) -> str:
  """Seconds as a reader wants them: 48 s, 12 min, 3.5 h."""
  if seconds < 90:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
