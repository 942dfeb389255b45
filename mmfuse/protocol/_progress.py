"""The live line: what is being trained, how far it is, and when it will be done."""

import sys
from typing import Any

from mmfuse.tree import FUSED


class Progress:
  """A `rich` progress bar on a terminal, one line per row elsewhere."""

  def __init__(self, total: int, epochs: int):
    self.total, self.epochs = max(1, total * epochs), epochs
    self.live = sys.stderr.isatty()
    self.bar: Any = None

  def __enter__(self):
    if self.live:
      from rich.console import Console
      from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

      self.bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"),
                          TimeRemainingColumn(), console=Console(stderr=True), transient=True)
      self.bar.start()
      self.task = self.bar.add_task("starting", total=self.total)
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
    self.bar.update(self.task, advance=1, description=(
        f"{row.name}{where} seed {entry['seed']}{rate} epoch {entry['epoch'] + 1}/{entry['epochs']} "
        f"validation {100 * score:.1f}"))

  def row_done(self, row: Any) -> None:
    """A row is complete."""
    if self.bar is None:
      print(f"{row.name}: trained", flush=True)
