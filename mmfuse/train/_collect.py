"""Collected scores of a method: which parts they read, before the report and in it."""

from typing import Any

from mmfuse import metrics
from mmfuse.core import Method, State, Unavailable
from mmfuse.train._evaluate import predict_split

# What a role is where no part has its name.
SELECTING = {"query": "validation", "database": "train", "test": "validation"}
REPORTING = {"query": "test", "database": "train"}


def part_of(splits: Any, role: str, *, selecting: bool) -> Any:
  """The part that a collected score reads as `role`.

  In selection "query" and "test" are the validation rows and "database" the training rows; in the
  report a part of that name, else "query" is the test rows and "database" the training rows.

  Args:
    splits: `data.Splits`.
    role: "query", "database", "test", or the name of a part.
    selecting: True before the last choice is made, False in the report.

  Raises:
    core.Unavailable: a part that is not there, or sealed until the report.
  """
  if selecting and role not in SELECTING:
    raise Unavailable(f"the part {role!r} is sealed until the report")
  name = SELECTING[role] if selecting else role
  if not selecting and role not in splits.parts:
    name = REPORTING.get(role, role)
  if name not in splits.parts:
    raise Unavailable(f"it reads the part {role!r}, and the data have: {', '.join(splits.parts)}")
  return splits.parts[name]


def collect(
  method: Method,
  state: State,
  splits: Any,
  collected: metrics.Collected,
  *,
  selecting: bool,
  batch_size: int = 512,
) -> dict[str, float]:
  """{score: value} of one state on the parts that `collected` reads.

  Args:
    method, state: what predicts.
    splits: `data.Splits`.
    collected: `metrics.map_at_k`, `metrics.ood_auroc`, or one of your own.
    selecting: True before the last choice is made (validation and training rows alone), False in
      the report.
    batch_size: rows per compiled call, default 512.

  Raises:
    core.Unavailable: a part that is not there, or sealed.
  """
  parts = {r: part_of(splits, r, selecting=selecting) for r in collected.reads}
  outputs = {
    r: predict_split(method, state, part, batch_size=batch_size) for r, part in parts.items()
  }
  return collected.compute(outputs, parts)
