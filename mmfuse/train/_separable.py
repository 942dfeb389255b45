"""Which loss reaches which leaf, read off the jaxpr: what the cheap gradient plans rest on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import tree
from mmfuse.train._dependence import dependence, dependence_and_shapes
from mmfuse.train._forward import Forward, Losses


def split_params(params: dict, modalities: Sequence[str]) -> tuple[dict, dict]:
  """(encoder subtrees, everything else)."""
  encoders = {m: params[m] for m in modalities if m in params}
  return encoders, {k: v for k, v in params.items() if k not in encoders}


class Structure(NamedTuple):
  """What reaches what in a pass."""

  reads: dict[str, bool]  # {objective: whether it can depend on the label}, as the losses come
  owners: Any  # with the rows that reach each leaf
  separable: bool  # whether the stacked plan is exact


def structure(forward: Forward, params: dict) -> Structure:
  """Read off few traces of the pass, as each costs about what a step's own does."""
  flat, treedef = jax.tree.flatten(tree.owners_of(params, forward.modalities))
  both = (params, forward.batch.label)
  reach: Losses = dependence(lambda b: forward.losses(*b), both)
  num = len(reach.names)
  of_part = [reach.values[s * num : (s + 1) * num] for s in range(forward.parts)]
  labels = range(len(flat), len(jax.tree.leaves(both)))
  reads = {
    n: any(i in part[k] for part in of_part for i in labels) for k, n in enumerate(reach.names)
  }
  rows = [
    tuple(k for k in range(num) if any(i in part[k] for part in of_part)) for i in range(len(flat))
  ]
  owners = jax.tree.unflatten(
    treedef, [tree.Owner(l.modality, l.part, r) for l, r in zip(flat, rows)]
  )
  own = {k: m for k, m in enumerate(reach.names) if m in forward.modalities}
  encoders_ok = all(
    own.get(k, l.modality) == l.modality
    for l, r in zip(flat, rows)
    if l.part == "encoder"
    for k in r
  )
  return Structure(reads, owners, encoders_ok and _separable_features(forward, params, own))


def _separable_features(forward: Forward, params: dict, own: dict[int, str]) -> bool:
  """Whether feature m comes from encoder m alone, and the own loss of m sees no other feature."""
  encoders, rest = split_params(params, forward.modalities)
  found, (features, between) = dependence_and_shapes(forward.encode, params)
  if set(features) != set(encoders):
    return False
  names, feature_names = _leaf_names(params), _leaf_names(features)
  reach = jax.tree.leaves(found[0], is_leaf=lambda x: isinstance(x, frozenset))
  if any(names[i] != m for m, sources in zip(feature_names, reach) for i in sources):
    return False
  between = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), between)
  # One argument, so that a head that reads an encoder's parameters directly is seen as well.
  both = {"encoders": encoders, "features": features}
  where = [(p[0].key, p[1].key) for p, _ in jax.tree_util.tree_flatten_with_path(both)[0]]
  losses, probe = dependence(
    lambda b: forward.heads({**rest, **b["encoders"]}, b["features"], between)[0], both
  )
  if any(where[i][0] == "encoders" for sources in (*losses.values, probe) for i in sources):
    return False
  num = len(losses.names)
  return all(
    where[i][1] == m for k, m in own.items() for sources in losses.values[k::num] for i in sources
  )


def _leaf_names(by_modality: dict) -> list[str]:
  return [path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(by_modality)[0]]


def feature_owners(
  names: Sequence[str], modalities: Sequence[str], separable: bool
) -> dict[str, tree.Owner]:
  """{modality: the owner of its features}: its own loss and those of no modality reach them."""
  rows = {
    m: tuple(k for k, n in enumerate(names) if n == m or n not in modalities) for m in modalities
  }
  return {m: tree.Owner(m, "encoder", rows[m] if separable else None) for m in modalities}
