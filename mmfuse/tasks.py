"""One table of tasks: what a label is, how it is judged, and what the constant predictor says."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmfuse import metrics
from mmfuse.core import ELBO
from mmfuse.names import (
  CLASSIFICATION,
  GENERATION,
  MULTILABEL,
  REGRESSION,
  RETRIEVAL,
  SEGMENTATION,
  VOID,
  closest,
)
from mmfuse.tree import FUSED


class Task(NamedTuple):
  """A kind of label, and everything that follows from it. A metric belongs to the task, never to a method."""

  name: str  # one of names.TASKS
  metric: Callable[..., metrics.Metric]  # (num_outputs, unit or None) -> how every row is judged
  primary: str  # the score that models are selected and compared by; more is better
  loss: str | None  # the score that settles ties of the primary one; less is better
  # (training labels, num_outputs) -> logits [C]; None where there is no constant predictor
  constant: Callable[[np.ndarray, int], np.ndarray] | None
  constant_words: str  # what the constant predictor is called in a table
  probabilities: Callable[[np.ndarray], np.ndarray]  # logits [N, C] -> what is shown of them
  linear: str | None = "logistic"  # the kind of regression that `linear` is; None = there is none
  # scores of whole parts, computed once a run, at its end; the primary one is its first then
  collected: metrics.Collected | None = None
  whole: str = FUSED  # what the column of a row's own score is called
  optimizer: str = "sgd"  # of a table where nobody says: "sgd" or "adam"
  # rows a step where nobody says; None = by the number of training rows
  batch_size: int | None = None


def _majority_class(label: np.ndarray, num_outputs: int) -> np.ndarray:
  """log((n_c + 1) / (n + C)): the majority class (ties to the lower), finite where training lacks one."""
  if label.min() < 0 or label.max() >= num_outputs:
    raise ValueError(f"labels must lie in 0..{num_outputs - 1}, got {label.min()}..{label.max()}")
  count = np.bincount(label.astype(int), minlength=num_outputs)
  return np.log((count + 1.0) / (len(label) + num_outputs))


def _majority_place(label: np.ndarray, num_outputs: int) -> np.ndarray:
  """As `_majority_class`, over the places that are not void."""
  return _majority_class(label[label != VOID], num_outputs)


def _columns(label: np.ndarray, num_outputs: int) -> np.ndarray:
  label = label.reshape(len(label), -1).astype(np.float64)
  if label.shape[1] != num_outputs:
    raise ValueError(f"labels have {label.shape[1]} columns, expected {num_outputs}")
  return label


def _majority_per_label(label: np.ndarray, num_outputs: int) -> np.ndarray:
  """log((n_l + 1) / (n - n_l + 1)), positive where most rows have the label."""
  count = _columns(label, num_outputs).sum(0)
  return np.log((count + 1.0) / (len(label) - count + 1.0))


def _mean_label(label: np.ndarray, num_outputs: int) -> np.ndarray:
  return _columns(label, num_outputs).mean(0)


def _at_the_end(collected: metrics.Collected) -> metrics.Metric:
  """The running metric of a task that is judged by whole parts: an epoch has no score."""
  nothing: Callable[..., dict] = lambda *_: {}
  return metrics.Metric(nothing, nothing, nothing, collected.scores)


MAP = metrics.map_at_k()  # at 50, divided by the relevant rows among them


def _softmax(logits: np.ndarray) -> np.ndarray:
  shifted = np.exp(logits - logits.max(-1, keepdims=True))
  return shifted / shifted.sum(-1, keepdims=True)


TASKS = {
  task.name: task
  for task in (
    Task(
      CLASSIFICATION,
      lambda num_outputs, unit: metrics.per_head(metrics.classification(num_outputs)),
      "accuracy",
      "nll",
      _majority_class,
      "majority class of training",
      _softmax,
    ),
    Task(
      MULTILABEL,
      lambda num_outputs, unit: metrics.per_head(metrics.multi_label(num_outputs)),
      "macro_f1",
      "nll",
      _majority_per_label,
      "majority per training label",
      lambda logits: 0.5 * (1.0 + np.tanh(0.5 * logits)),
    ),
    Task(
      REGRESSION,
      lambda num_outputs, unit: metrics.per_head(metrics.regression(num_outputs, unit)),
      "r2",
      "rmse",
      _mean_label,
      "mean of training labels",
      lambda values: values,
      "ridge",
    ),
    Task(
      GENERATION,
      lambda num_outputs, unit: metrics.row_mean(ELBO, words="ELBO in nats"),
      ELBO,
      None,
      None,
      "",
      lambda values: values,
      None,
    ),
    Task(
      RETRIEVAL,
      lambda num_outputs, unit: _at_the_end(MAP),
      MAP.scores[0].name,
      None,
      None,
      "random ranking",
      lambda values: values,
      None,
      MAP,
      "mean",
    ),
    Task(
      SEGMENTATION,
      lambda num_outputs, unit: metrics.segmentation(num_outputs),
      "miou",
      "nll",
      _majority_place,
      "majority class of training",
      _softmax,
      None,
      optimizer="adam",
      batch_size=16,
    ),
  )
}


def get(name: str) -> Task:
  """The task called `name`. Raises ValueError for an unknown one, naming the closest."""
  if name not in TASKS:
    raise ValueError(f"unknown task {name!r}; {closest(str(name), TASKS)}")
  return TASKS[name]


@functools.lru_cache(maxsize=64)
def _metric(name: str, num_outputs: int, unit: tuple[float, ...] | None) -> metrics.Metric:
  """The same Metric object for the same task, so that compiled evaluations are found again."""
  return get(name).metric(num_outputs, unit)


def metric(name: str, num_outputs: int, unit: Sequence[float] | None = None) -> metrics.Metric:
  """The running metric of a task; the same object each time.

  Args:
    name: of the task.
    num_outputs: columns of the logits.
    unit: of a regression whose labels are standardised, see `metrics.regression`; default none.

  Raises:
    ValueError: an unknown task, naming the closest.
  """
  return _metric(name, num_outputs, None if unit is None else tuple(float(u) for u in unit))


def metric_of(data: Any) -> metrics.Metric:
  """The metric of a data set: errors of a regression are in the unit of its labels."""
  target = getattr(data, "target", None)
  return metric(data.task, data.num_outputs, None if target is None else target.std)


def constant(label_train: Any, name: str, num_outputs: int) -> np.ndarray:
  """Logits [C] (float32) of the constant predictor, from training labels: a row every table needs.

  classification: log((n_c + 1) / (n + C)), so that argmax is the majority class (ties to the lower)
  and the likelihood stays finite for a class that training lacks;
  multilabel: log((n_l + 1) / (n - n_l + 1)), positive where most rows have the label;
  segmentation: as classification, over the places that are not void;
  regression: the mean of the labels.

  Args:
    label_train: labels of the training rows.
    name: of the task.
    num_outputs: C.

  Raises:
    ValueError: no training rows, an unknown task or one that has no constant predictor, labels
      outside 0..C-1.
  """
  predictor = get(name).constant
  if predictor is None:
    raise ValueError(f"the task {name} has no constant predictor")
  label = np.asarray(label_train)
  if len(label) == 0:
    raise ValueError("the majority predictor needs at least one training row, got none")
  return predictor(label, num_outputs).astype(np.float32)
