"""What the objectives on uni-modal branches of one shared head have in common."""

import itertools
from collections.abc import Iterable

import jax

from mmfuse.core import Outputs, Unavailable
from mmfuse.names import CLASSIFICATION
from mmfuse.objectives._classification import task_of


def branch_logits(outputs: Outputs) -> dict[str, jax.Array]:
  """{m: z_m [B, C]}: the additive split z_m = h_m W_m + b / M of the fused head (concat, sum).

  Raises Unavailable for another head: its uni-modal heads are probes beside it, not its branches.
  """
  found = outputs.aux.get("split_logits")
  if found is None:
    raise Unavailable(
      "it works on the branches of an additive fused head: use the fusion concat or sum"
    )
  return {m: found[m] for m in sorted(found)}


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
  """All unordered pairs, in sorted order."""
  return list(itertools.combinations(sorted(names), 2))


def check_classes(label, what: str) -> None:
  """Refuses labels that are not one class per row: `what` reads off a confidence."""
  task = task_of(label)
  if task != CLASSIFICATION:
    raise ValueError(f"{what} needs one class per row (int labels [B]), got a {task} task")
