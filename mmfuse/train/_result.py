"""What `fit` returns: states, logs, and the records a table is made of."""

import dataclasses
import statistics
from typing import Any

import jax
import numpy as np

from mmfuse.core import State
from mmfuse.metrics import Score, described
from mmfuse.train._selection import parse
from mmfuse.tree import FUSED


@dataclasses.dataclass
class RunLog:
  """The history of one run. Epochs count from 0; `selected_epoch` is the first best one."""

  seed: int  # of initialisation, order of rows and noise
  learning_rate: float | None  # given to `fit`; None = the method's own
  history: list[dict] = dataclasses.field(default_factory=list)  # an entry an epoch
  selected_epoch: int = -1  # -1 = none yet
  best: float | None = None  # selection score, larger is better
  best_loss: float | None = None  # validation loss of that epoch: what ties are settled by
  waited: int = 0  # epochs since the best one
  stopped: bool = False  # by patience, or because it diverged
  diverged_at: int | None = None  # first step with a non-finite loss or gradient
  examples: int = 0  # rows of gradient evaluations so far, all phases

  def enter(self, phase: str) -> None:
    """A phase begins: selection restarts. A run that diverged earlier has nothing to show here."""
    del phase
    if self.diverged_at is not None:
      self.selected_epoch, self.best, self.best_loss = -1, None, None
      return
    self.selected_epoch, self.best, self.best_loss = -1, None, None
    self.waited, self.stopped = 0, False

  def diverge(self, epoch: int, step: int) -> None:
    """The guard saw a non-finite step: the run ends with the best state it had."""
    del epoch
    self.stopped = True
    self.diverged_at = step if self.diverged_at is None else self.diverged_at

  def append(self, phase, epoch, entry, scores, judged, seconds, examples, patience) -> bool:
    """Logs an epoch; whether it is the best so far.

    Args:
      phase: its name.
      epoch: within the phase, from 0.
      entry: {name: value} of what is logged.
      scores: {head: {score: value}} on the validation rows, None where they were not scored.
      judged: (score, loss), larger and smaller are better; None of each without a validation.
      seconds: of a step: in the program, in hooks.
      examples: rows of gradient evaluations in it.
      patience: epochs without improvement after which the run stops; None = never.
    """
    score, loss = judged
    self.examples += examples
    heads = (
      None
      if scores is None
      else {
        h: {k: None if v is None else float(v) for k, v in values.items()}
        for h, values in scores.items()
      }
    )
    values = {k: np.asarray(v).tolist() for k, v in entry.items()}
    self.history.append(
      {
        "phase": phase,
        "epoch": epoch,
        **values,
        "validation": heads,
        "seconds_per_step": seconds[0],
        "hook_seconds_per_step": seconds[1],
      }
    )
    if self.diverged_at is not None:
      return False
    if score is None:
      self.selected_epoch = epoch
      return True
    if np.isfinite(score) and (self.best is None or score > self.best):
      self.best, self.best_loss, self.selected_epoch, self.waited = score, loss, epoch, 0
      return True
    self.waited += 1
    if patience is not None and self.waited >= patience:
      self.stopped = True
    tied = score == self.best and self.best_loss is not None and loss < self.best_loss
    if tied:  # no improvement that patience would wait for
      self.best_loss, self.selected_epoch = loss, epoch
    return tied

  def judge(self, scores: dict[str, dict[str, float]], score: float) -> None:
    """What a run is worth whose epochs have no scores of their own: those of the state it ended with.

    Args:
      scores: {head: {score: value}} on the validation rows.
      score: which of them it is compared by, larger is better.
    """
    if self.selected is None:
      return
    self.selected["validation"] = scores
    self.best = score if np.isfinite(score) else None

  @property
  def selected(self) -> dict | None:
    """The history entry of the selected epoch, None where no epoch was usable."""
    if self.selected_epoch < 0:
      return None
    last = self.history[-1]["phase"]
    return next(e for e in self.history if e["phase"] == last and e["epoch"] == self.selected_epoch)

  def to_json(self) -> dict:
    """Plain data; floats survive exactly."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, data: dict) -> "RunLog":
    """The inverse of `to_json`."""
    return cls(**data)


@dataclasses.dataclass(frozen=True)
class Result:
  """What `fit` returns, one run per seed."""

  states: State  # leaves [S, ...]; parameters of the selected epoch
  logs: tuple[RunLog, ...]  # [S], in the order of the states
  metric: str  # what was selected by
  modalities: tuple[str, ...]  # of the training rows, sorted
  scores: tuple[Score, ...] = ()  # what the metric gives, with direction and unit

  def state(self, i: int = 0) -> State:
    """The state of run i, without the leading axis."""
    return jax.tree.map(lambda x: x[i], self.states)

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds, in order."""
    return tuple(log.seed for log in self.logs)

  @property
  def validation(self) -> list[dict[str, float | None]]:
    """Per run, {fused, <modality>: metric} at the selected epoch; None where no head is."""
    return [validation_scores(log, self._score, self.modalities) for log in self.logs]

  @property
  def _score(self) -> str:
    """What was selected by, on the data as they are."""
    return parse(self.metric).score

  @property
  def seconds_per_step(self) -> float:
    """Median over epochs, the first (compilation) left out where there are others."""
    times = [e["seconds_per_step"] for log in self.logs for e in log.history[1:] or log.history]
    return statistics.median(times)

  def records(self, name: str) -> list[dict[str, Any]]:
    """Rows for `report`: validation scores only, since `fit` never saw a test split.

    `passport` of a score that is none of ours is its direction and unit.
    """
    own = described(self.scores)
    passport = {"passport": own[self._score]} if self._score in own else {}
    return [
      {
        "method": name,
        "seed": log.seed,
        "fold": None,
        "metric": self._score,
        **passport,
        "selected_epoch": log.selected_epoch,
        "learning_rate": log.learning_rate,
        "validation": scores,
        "test": dict.fromkeys(scores),
        "seconds_per_step": self.seconds_per_step,
      }
      for log, scores in zip(self.logs, self.validation)
    ]


def validation_scores(log: RunLog, metric: str, modalities) -> dict[str, float | None]:
  """{fused, <modality>: value} of a run's selected epoch.

  None for a head that is not there or whose modality no row has; NaN is what diverged.

  Args:
    log: of the run.
    metric: the score's name.
    modalities: names of the uni-modal heads, beside the fused one.
  """
  heads = (FUSED, *modalities)
  entry = log.selected
  found = {} if entry is None or entry["validation"] is None else entry["validation"]
  return {h: found.get(h, {}).get(metric) for h in heads}
