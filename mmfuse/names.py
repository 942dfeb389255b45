"""Names of tasks, each written once, and what is said of a name that nobody knows. Imports no JAX."""

import difflib
from collections.abc import Iterable
from typing import Any, Literal, get_args

TaskName = Literal[
  "classification", "multilabel", "regression", "generation", "retrieval", "segmentation"
]
TASKS: tuple[str, ...] = get_args(TaskName)
CLASSIFICATION, MULTILABEL, REGRESSION, GENERATION, RETRIEVAL, SEGMENTATION = TASKS
VOID = -1  # of a segmentation: the label of places that do not count


def label_kind(task: str, label: Any) -> str:
  """classification or multilabel of a retrieval's label [N] or [N, L]; else the task itself."""
  if task != RETRIEVAL or label is None:
    return task
  return MULTILABEL if label.ndim == 2 else CLASSIFICATION


FEW = 8  # names that a sentence lists, whether or not one is close


def closest(name: str, known: Iterable[str]) -> str:
  """`closest: b; available: a, b, c`, for the end of a sentence on an unknown `name`.

  Of many known names the three closest, or all where none is close.

  Args:
    name: what was given.
    known: what there is, in the order to list it in.
  """
  known = list(known)
  few = len(known) <= FEW
  near = difflib.get_close_matches(name, known, n=1 if few else 3, cutoff=0.4)
  said = [f"closest: {', '.join(near)}"] if near else []
  if few or not near:
    said.append(f"available: {', '.join(known) or 'none'}")
  return "; ".join(said)
