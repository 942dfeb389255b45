"""The one rule that maps a parameter leaf to its modality, and tree algebra that knows about it.

Rule: the top-level subtree named after a modality is its encoder; `heads/<modality>` is its head;
`heads/fused` is a head of no modality; `decoders/<modality>` is its decoder; everything else is shared.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

HEADS = "heads"  # top-level subtree of all heads
DECODERS = "decoders"  # top-level subtree of all decoders
FUSED = "fused"  # name of the fused objective, first of the K
SMALL = 2**14  # numbers of a leaf that may be copied for `few_vectors`
RESERVED = (HEADS, FUSED, DECODERS, "shared", "label", "split", "group")


@dataclasses.dataclass(frozen=True)
class Owner:
  """Whose a leaf is. Not a pytree node: a tree of owners has them as leaves."""

  modality: str | None  # None = of no single modality
  part: str  # "encoder" | "head" | "decoder" | "shared"
  objectives: tuple[int, ...] | None = None  # whose gradient may be non-zero here; None = any


def _name(entry: Any) -> str:
  return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))


def owners_of(params: Any, modalities: Sequence[str]) -> Any:
  """A tree shaped as `params` with an `Owner` at each leaf, by the rule above."""
  names = set(modalities)

  def label(path, _):
    keys = [_name(p) for p in path]
    if keys and keys[0] in names:
      return Owner(keys[0], "encoder")
    if len(keys) > 1 and keys[0] == HEADS and keys[1] in names:
      return Owner(keys[1], "head")
    if len(keys) > 1 and keys[0] == HEADS and keys[1] == FUSED:
      return Owner(None, "head")
    if len(keys) > 1 and keys[0] == DECODERS and keys[1] in names:
      return Owner(keys[1], "decoder")
    return Owner(None, "shared")

  return jax.tree_util.tree_map_with_path(label, params)


def top_level_owners(params: Any) -> Any:
  """The default of a user's own loop: the modality of a leaf is its top-level subtree."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: _name(path[0]) if path else "shared", params
  )


def dot(a: Any, b: Any) -> jax.Array:
  """<a, b> over all leaves, in float32."""
  parts = jax.tree.map(lambda x, y: jnp.vdot(x.astype(jnp.float32), y.astype(jnp.float32)), a, b)
  return sum(jax.tree.leaves(parts), jnp.zeros((), jnp.float32))


def few_vectors(tree: Any) -> list[jax.Array]:
  """The leaves in float32 as vectors, all small ones as one: for sums over everything.

  XLA compiles a reduction of each shape anew, of 18 shapes in .5 s on CPU and of their one vector in .03.
  A large leaf stays alone, as the vector is a copy.
  """
  vectors = [x.astype(jnp.float32).reshape(-1) for x in jax.tree.leaves(tree)]
  small = [v for v in vectors if v.size <= SMALL]
  return [*([jnp.concatenate(small)] if small else []), *(v for v in vectors if v.size > SMALL)]


def norm(tree: Any) -> jax.Array:
  """sqrt(<tree, tree>) over all leaves, in float32."""
  return jnp.sqrt(sum((jnp.sum(jnp.square(v)) for v in few_vectors(tree)), jnp.zeros(())))


def _rows(label: Any, num_objectives: int) -> tuple[int, ...]:
  rows = getattr(label, "objectives", None)
  return tuple(range(num_objectives)) if rows is None else rows


def gram(stacked: Any, owners: Any = None) -> jax.Array:
  """A = G G^T [K, K] of stacked gradients [K, *param], summed over leaves, in float32.

  With `owners`, rows known to be zero are never multiplied: two rows per encoder, whatever M.
  """
  leaves = jax.tree.leaves(stacked)
  num_objectives = leaves[0].shape[0]
  tags = jax.tree.leaves(owners) if owners is not None else [None] * len(leaves)
  total = jnp.zeros((num_objectives, num_objectives), jnp.float32)
  for leaf, tag in zip(leaves, tags, strict=True):
    rows = _rows(tag, num_objectives)
    if not rows:
      continue
    flat = jnp.stack([leaf[k].reshape(-1).astype(jnp.float32) for k in rows])
    total = total.at[jnp.ix_(jnp.array(rows), jnp.array(rows))].add(
      jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)
    )
  return total


def combine(weights: jax.Array, stacked: Any, owners: Any = None) -> Any:
  """sum_k w_k g_k leaf by leaf: [K] x [K, *param] -> [*param]; skips rows known to be zero.

  Args:
    weights: w [K].
    stacked: g, a tree of [K, *param].
    owners: a tree of `Owner` alike, whose `rows` say which k can reach a leaf; default None, all.
  """

  def one(leaf, tag=None):
    rows = _rows(tag, leaf.shape[0])
    out = jnp.zeros(leaf.shape[1:], leaf.dtype)
    for k in rows:
      out = out + weights[k].astype(leaf.dtype) * leaf[k]
    return out

  return jax.tree.map(one, stacked) if owners is None else jax.tree.map(one, stacked, owners)
