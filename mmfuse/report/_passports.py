"""What is known of a user's own scores: direction and unit, as records and `run.json` keep them."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmfuse import metrics
from mmfuse.metrics import Score
from mmfuse.report._records import Record


def passports(records: Iterable[Record], kept: Mapping[str, Any]) -> dict[str, Score]:
  """{name: passport} of the scores that are none of ours.

  Args:
    records: where `passport` is that of their `metric`, as `train.fit` leaves it.
    kept: {name: passport as plain data}, as `metrics.described` makes them; it wins.
  """
  found = {r["metric"]: r["passport"] for r in records if r.get("passport")}
  return {name: Score(**fields) for name, fields in {**found, **kept}.items()}


def passport(name: str, own: Mapping[str, Score]) -> Score:
  """That of `name`, one of the user's or of ours."""
  return own.get(name, metrics.score(name))


def judged_by(record: Record, own: Mapping[str, Score]) -> Score:
  """The passport of what a run was chosen by: of `select`, "mean/nll" say, or else of its metric."""
  name = record.get("select") or record.get("metric", "accuracy")
  return passport(name.partition("@")[0].rpartition("/")[2], own)
