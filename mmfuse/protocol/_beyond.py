"""What the report adds where the data have more than labelled test rows: "ood", "shifted", true masks."""

from typing import Any

import numpy as np

from mmfuse import metrics, train
from mmfuse.core import Method, Outputs, State
from mmfuse.names import CLASSIFICATION
from mmfuse.protocol import _weak
from mmfuse.protocol._rows import Row
from mmfuse.protocol._search import Search
from mmfuse.tree import FUSED


def _wanted(splits: Any) -> list[metrics.Collected]:
  found = []
  if "ood" in splits.parts:
    found.append(metrics.ood_auroc())
  if "shifted" in splits.parts:
    found.append(metrics.under_shift())
  return found


def _scores(
  method: Method, state: State, splits: Any, wanted: list[metrics.Collected]
) -> dict[str, float]:
  """{score: value} of one state; each part is predicted once."""
  seen: dict[str, Outputs] = {}

  def said(part: str) -> Outputs:
    if part not in seen:
      seen[part] = train.predict_split(method, state, splits.parts[part])
    return seen[part]

  if "members" in said("test").aux:
    each = [metrics.disagreement(p) for p in ("test", "shifted") if p in splits.parts]
    wanted = [*wanted, *each]
  found: dict[str, float] = {}
  for collected in wanted:
    outputs = {part: said(part) for part in collected.reads}
    found |= collected.compute(outputs, {part: splits.parts[part] for part in collected.reads})
  return found


def with_parts(
  records: list[dict], search: Search, row: Row, choice: dict, splits: Any
) -> list[dict]:
  """The records of a row on a split, with what is known of it beyond its labels.

  Classification alone. "parts" {score: value}, where there is such a part: OOD AUROC, accuracy, NLL and
  ECE under shift, disagreement of members. Among "scores": those of maps against masks (`_weak`). A run
  without a score has none of these either.

  Args:
    records: one a seed.
    search: of the split, where the runs are.
    row: the method.
    choice: of the row on this split.
    splits: with all parts; they are opened here.
  """
  wanted, masks = _wanted(splits), _weak.has_masks(splits)
  if not (wanted or masks) or splits.task != CLASSIFICATION:
    return records
  trial = search.chosen(choice)
  method = search.method(row, trial)
  template = search.template(method)
  out = []
  for record in records:
    scores: dict[str, float] = {}
    if np.isfinite(record["test"].get(FUSED) or 0) and record["selected_epoch"] >= 0:
      state = search.load_weights(row, record["seed"], trial, template)
      scores = _scores(method, state, splits, wanted) if wanted else {}
      if masks:
        test = {**record["scores"]["test"], **_weak.further(method, state, splits)}
        record = {**record, "scores": {**record["scores"], "test": test}}
    out.append({**record, "parts": scores} if wanted else record)
  return out
