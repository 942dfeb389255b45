"""What the objectives on uni-modal branches of one shared head have in common."""

import itertools
from collections.abc import Iterable

import jax

from mmfuse.core import Outputs
from mmfuse.objectives._classification import task_of


def branch_logits(outputs: Outputs) -> dict[str, jax.Array]:
  """{m: z_m [B, C]}: the additive split of the fused head, else the uni-modal heads' logits.

  The published codes read z_m = h_m W_m + b / M off the fused head, which concat and sum have.
  """
  found = outputs.aux.get("split_logits") or outputs.unimodal_logits
  return {m: found[m] for m in sorted(found)}


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
  """All unordered pairs, in sorted order."""
  return list(itertools.combinations(sorted(names), 2))


def check_classes(label, what: str) -> None:
  """Refuses labels that are not one class per row: `what` reads off a confidence."""
  task = task_of(label)
  if task != "classification":
    raise ValueError(f"{what} needs one class per row (int labels [B]), got a {task} task")
