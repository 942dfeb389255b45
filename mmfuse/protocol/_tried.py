"""What the trials of a row came to, and which of them is chosen."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mmfuse import train
from mmfuse.protocol._rows import Trial


class Diverged(RuntimeError):
  """No trial of a row has a usable epoch."""


class Tried(NamedTuple):
  """How a trial went over its seeds."""

  score: float  # mean best validation score, -inf where a seed has none
  loss: float  # mean validation loss at those epochs
  logs: list[train.RunLog]

  @classmethod
  def of(cls, logs: list[train.RunLog]) -> "Tried":
    losses = [np.inf if log.best_loss is None else log.best_loss for log in logs]
    return cls(float(np.mean([score_of(log) for log in logs])), float(np.mean(losses)), logs)


def best_trial(found: Mapping[Trial, Tried]) -> Trial:
  """The largest score, then the smallest loss, then the smallest rate, then the first."""
  if all(t.score == -np.inf for t in found.values()):
    tried = ", ".join(f"{rate:g}" for rate in sorted({t.rate for t in found}))
    raise Diverged(
      f"every trial diverged (non-finite loss or gradient) at learning rates {tried}; "
      "--rates takes smaller ones, --optimizer another optimiser"
    )
  order = list(found)
  return min(order, key=lambda t: (-found[t].score, found[t].loss, t.rate, order.index(t)))


def on_edge(chosen: Trial, found: Mapping[Trial, Tried]) -> bool:
  """Whether a chosen value, rate or hyper-parameter, is the first or last of those tried.

  Not where a trial whose value lies inside has the same score.
  """
  point = lambda t: {"": t.rate, **dict(t.hyper)}
  axes = {name: sorted({point(t)[name] for t in found}) for name in point(chosen)}
  tied = [t for t, v in found.items() if v.score == found[chosen].score]
  return any(
    len(values) > 1 and all(point(t)[name] in (values[0], values[-1]) for t in tied)
    for name, values in axes.items()
  )


def score_of(log: train.RunLog) -> float:
  return -np.inf if log.best is None else log.best
