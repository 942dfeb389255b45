"""Stacked gradients on the parameters that objectives share; heads keep their plain gradient.

`_groups.aggregate` serves rules that are a function of one Gram matrix. The rules here also keep
state, compare batches, or act element by element.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import tree
from mmfuse.balancing import _groups


def shared_leaves(stacked: Any, owners: Any, num_objectives: int) -> dict[int, tuple[int, ...]]:
  """{position of a leaf several objectives reach: the objectives that reach it}; no heads."""
  tags = _groups.flat_labels(owners, len(jax.tree.leaves(stacked)))
  groups = _groups.split(tags, num_objectives)
  return {i: _groups.reach(tags[i], num_objectives) for group in groups for i in group.leaves}


def cross_gram(left: Any, right: Any, owners: Any, num_objectives: int) -> jax.Array:
  """G H^T [K, K] over the shared leaves of two trees of [K, *param], in float32."""
  ours, theirs = jax.tree.leaves(left), jax.tree.leaves(right)
  found: dict[tuple[int, ...], jax.Array] = {}
  for i, rows in shared_leaves(left, owners, num_objectives).items():
    a, b = (_flat(leaf, rows) for leaf in (ours[i], theirs[i]))
    part = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    found[rows] = found[rows] + part if rows in found else part
  total = jnp.zeros((num_objectives, num_objectives), jnp.float32)
  for rows, gram in found.items():  # a scatter a leaf takes long to compile
    total = total.at[jnp.ix_(jnp.array(rows), jnp.array(rows))].add(gram)
  return total


def shared_norms(stacked: Any, owners: Any, num_objectives: int) -> jax.Array:
  """|g_k| [K] over the shared leaves, in float32."""
  leaves, squares = jax.tree.leaves(stacked), [jnp.zeros((), jnp.float32)] * num_objectives
  for i, rows in shared_leaves(stacked, owners, num_objectives).items():
    for k in rows:
      squares[k] = squares[k] + jnp.sum(jnp.square(leaves[i][k].astype(jnp.float32)))
  return jnp.sqrt(jnp.stack(squares))


def _flat(leaf: jax.Array, rows: tuple[int, ...]) -> jax.Array:
  """[R, D] in float32; rows known to be zero are never read."""
  return jnp.stack([leaf[k].reshape(-1).astype(jnp.float32) for k in rows])


def shared_gram(stacked: Any, owners: Any, num_objectives: int) -> jax.Array:
  """A = G G^T [K, K] over the shared leaves."""
  return cross_gram(stacked, stacked, owners, num_objectives)


def nonzero_rows(stacked: Any, owners: Any, num_objectives: int) -> jax.Array:
  """bool [K], True where an objective's gradient is not zero on all of the shared leaves."""
  leaves, seen = jax.tree.leaves(stacked), jnp.zeros(num_objectives, bool)
  for i in shared_leaves(stacked, owners, num_objectives):
    seen = seen | jnp.any(leaves[i].reshape(num_objectives, -1) != 0, axis=1)
  return seen


def map_shared(
  rule: Callable[..., jax.Array], stacked: Any, owners: Any, present: jax.Array, *rest: Any
) -> Any:
  """`rule(reach, leaf [K, *param], *rest)` on each shared leaf; elsewhere the sum of the present.

  `reach` is a `tree.Owner` with the rows that may be non-zero there.
  """
  leaves, treedef = jax.tree.flatten(stacked)
  num, tags = present.shape[0], _groups.flat_labels(owners, len(leaves))
  others = [jax.tree.leaves(r) for r in rest]
  shared, plain, out = shared_leaves(stacked, owners, num), present.astype(jnp.float32), []
  for i, leaf in enumerate(leaves):
    reach = tree.Owner(None, "shared", _groups.reach(tags[i], num))
    if i in shared:
      out.append(rule(reach, leaf, *(o[i] for o in others)).astype(leaf.dtype))
    else:
      out.append(tree.combine(plain, leaf, reach))
  return jax.tree.unflatten(treedef, out)


def combine_shared(weights: jax.Array, stacked: Any, owners: Any, present: jax.Array) -> Any:
  r"""\sum_k w_k g_k on the shared leaves, the plain sum elsewhere: [K, *param] -> [*param]."""
  return map_shared(
    lambda reach, leaf: tree.combine(weights, leaf, reach), stacked, owners, present
  )


def column(row: jax.Array, like: jax.Array) -> jax.Array:
  """[K] shaped to multiply [K, ...]."""
  return row.reshape((-1,) + (1,) * (like.ndim - 1))
