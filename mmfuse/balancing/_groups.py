"""Which parameters a Gram-based rule weighs together, and which keep their plain gradient.

Objectives compete only where they meet: on parameters that more than one of them can move. Heads
belong to one objective each and always get their own plain gradient, unweighted.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import tree

SCOPES = ("global", "encoder")
RESCALE = ("none", "sum")


class Group(NamedTuple):
  """Leaves that share one Gram matrix."""

  rows: tuple[int, ...]  # [R] the objectives weighed against each other
  leaves: tuple[int, ...]  # positions in the flattened parameters


def check_count(num_objectives: Any) -> int:
  """`num_objectives` as an int >= 1, or a sentence."""
  if isinstance(num_objectives, bool) or not hasattr(num_objectives, "__index__"):
    raise TypeError(f"num_objectives must be a whole number >= 1, got {num_objectives!r}")
  if num_objectives < 1:
    raise ValueError(f"num_objectives must be at least 1, got {num_objectives}")
  return int(num_objectives)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
  """`value` is one of `choices`, or a sentence."""
  if value not in choices:
    raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}")


def check_stacked(stacked: Any, num_objectives: int) -> None:
  """Every leaf has the leading axis K, or a sentence."""
  for leaf in jax.tree.leaves(stacked):
    if leaf.ndim == 0 or leaf.shape[0] != num_objectives:
      raise ValueError(
        f"this aggregator was made for {num_objectives} objectives and takes gradients "
        f"[{num_objectives}, *param]; got a leaf of shape {list(leaf.shape)}"
      )


def everyone(present: Any, num_objectives: int) -> jax.Array:
  """bool [K]; None = every objective is present."""
  if present is None:
    return jnp.ones(num_objectives, bool)
  return jnp.asarray(present, bool)


def uniform_weights(num_objectives: int) -> jax.Array:
  """1/K each, float32 [K]."""
  return jnp.full(num_objectives, 1.0 / num_objectives, jnp.float32)


def rescaled(weights: jax.Array, present: jax.Array, rescale: str) -> jax.Array:
  """Multipliers [K]: as they are, or times the number of present objectives."""
  return weights * present.sum() if rescale == "sum" else weights


def reach(label: tree.Owner | None, num_objectives: int) -> tuple[int, ...]:
  """Rows that may be non-zero on a leaf; all of them where the label does not say."""
  if label is None or label.objectives is None:
    return tuple(range(num_objectives))
  return tuple(k for k in label.objectives if k < num_objectives)


def modality_order(tags: Sequence[tree.Owner | None]) -> list[str]:
  """Sorted modality names of a flat list of owners: row 1 + i belongs to the i-th."""
  return sorted({t.modality for t in tags if t is not None and t.modality is not None})


def split(
  tags: Sequence[tree.Owner | None], num_objectives: int, scope: str = "global"
) -> list[Group]:
  """Groups of leaves weighed together: all at once, or one group per encoder and one for the rest.

  Heads and leaves that a single objective reaches are in no group. An encoder whose label names no
  rows is weighed, under scope "encoder", between the fused objective and its own (late fusion).
  """
  order = modality_order(tags)
  members: dict[str, list[int]] = {}
  rows: dict[str, set[int]] = {}
  for i, tag in enumerate(tags):
    touching = reach(tag, num_objectives)
    name = "shared"
    if scope == "encoder" and tag is not None and tag.part == "encoder" and tag.modality:
      name = f"encoder/{tag.modality}"
      if tag.objectives is None:
        touching = tuple(k for k in (0, 1 + order.index(tag.modality)) if k < num_objectives)
    if (tag is not None and tag.part == "head") or len(touching) < 2:
      continue
    members.setdefault(name, []).append(i)
    rows.setdefault(name, set()).update(touching)
  return [
    Group(tuple(sorted(rows[name])), tuple(leaves)) for name, leaves in sorted(members.items())
  ]


def flat_labels(owners: Any, count: int) -> list[tree.Owner | None]:
  """The owners of the flattened parameters; None where nothing is known."""
  return [None] * count if owners is None else jax.tree.leaves(owners)


def aggregate(
  weigh: Callable[[jax.Array, tuple[int, ...], jax.Array], jax.Array],
  stacked: Any,
  owners: Any,
  present: jax.Array,
  scope: str = "global",
) -> tuple[Any, jax.Array]:
  """Applies `weigh(gram [R, R], rows, present [R]) -> multipliers [R]` to each group.

  Returns (direction [*param], multipliers [K], averaged over the groups an objective is part of).
  """
  if scope == "encoder" and owners is None:
    raise ValueError("scope='encoder' must know the encoders: pass owners= (a tree of tree.Owner)")
  leaves, treedef = jax.tree.flatten(stacked)
  num = leaves[0].shape[0]
  tags = flat_labels(owners, len(leaves))
  known = [tree.Owner(None, "shared", reach(t, num)) for t in tags]
  plain = present.astype(jnp.float32)
  multipliers = [plain] * len(leaves)
  total, groups = jnp.zeros(num, jnp.float32), split(tags, num, scope)
  for group in groups:
    index = jnp.array(group.rows)
    gram = tree.gram([leaves[i] for i in group.leaves], [known[i] for i in group.leaves])
    weights = weigh(gram[jnp.ix_(index, index)], group.rows, present[index])
    total = total.at[index].add(weights)
    for i in group.leaves:
      multipliers[i] = plain.at[index].set(weights)
  out = [tree.combine(w, leaf, tag) for w, leaf, tag in zip(multipliers, leaves, known)]
  times = jnp.array([sum(k in g.rows for g in groups) for k in range(num)], jnp.float32)
  weights = jnp.where(times > 0, total / jnp.maximum(times, 1.0), plain)
  return jax.tree.unflatten(treedef, out), weights
