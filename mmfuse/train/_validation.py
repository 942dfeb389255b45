"""What the epochs of a run are judged by: the validation rows, on the device."""

import functools
from collections.abc import Callable
from typing import Any

from mmfuse import metrics as metrics_lib
from mmfuse import tasks
from mmfuse.core import State
from mmfuse.train import _evaluate, _selection
from mmfuse.train._plan import Plan

Judged = tuple[float | None, float | None]  # (score, loss); None where a phase is not validated


class Validation:
  """The validation rows of a plan; `batches` is None where it has none."""

  def __init__(self, plan: Plan):
    self.plan, self.split = plan, plan.data.validation
    there = self.split is not None
    self.batches = plan.place(_evaluate.padded_batches(self.split, 512)) if there else None
    self.absent = _evaluate.absent(self.split) if there else frozenset()
    self.keep = _evaluate.keep_all(plan.data.train.mask)

  @functools.cached_property
  def subsets(self) -> _selection.SubsetViews:
    """Made where something is selected over them."""
    return _selection.SubsetViews(self.split, self.plan.place)

  def scores(self, predict, metric: metrics_lib.Metric, select: str, state: State, loop: str):
    """{head: {score: value [] or [S]}}, over subsets too where `select` asks for them."""
    stacked = self.plan.stacked
    looped = loop == "python" and not stacked
    if _selection.parse(select).over:
      return self.subsets.scores(predict, metric, state, looped=looped, stacked=stacked)
    whole = functools.partial(_evaluate.scan_batches, stacked=stacked)
    run: Callable[..., Any] = _evaluate.loop_batches if looped else whole
    return run(predict, metric, state, self.batches, self.keep)

  def judge(self, scores, metric: metrics_lib.Metric, select: str) -> tuple[Any, Judged]:
    """The scores of one run as they are logged, and what they are worth; None where there are none."""
    if scores is None:
      return None, (None, None)
    # A modality that no validation row has is judged on nothing; NaN stays for what diverged.
    scores = {h: dict.fromkeys(v) if h in self.absent else v for h, v in scores.items()}
    loss = tasks.get(self.plan.data.task).loss
    return scores, _selection.judge(select, scores, metric, loss)
