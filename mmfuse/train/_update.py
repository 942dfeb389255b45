"""What every step does with a gradient: the optimiser, what is absent stays where it is, the log."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import tree
from mmfuse.train._waiting import waits

SHARED = "shared"  # the leaves of no modality, among those that wait for a row (`since_moved`)


def init_opt(
  tx: optax.GradientTransformation, params: Any, modalities: Sequence[str], coast: bool = False
) -> dict[str, Any]:
  """{"tx": the optimiser's state, "seen": who was present since it moved last}.

  The second where the optimiser may wait with an update and what is absent stays (not `coast`).
  """
  opt: dict[str, Any] = {"tx": tx.init(params)}
  if not coast and waits(opt["tx"]):
    opt["seen"] = {m: jnp.zeros((), bool) for m in (*modalities, SHARED)}
  return opt


def present_in(mask: Mapping[str, jax.Array], moving: jax.Array) -> dict[str, jax.Array]:
  """{m or "shared": bool}: whether any of the rows `moving` [B] has it."""
  return {**{m: jnp.any(v & moving) for m, v in mask.items()}, SHARED: jnp.any(moving)}


def move(
  tx: optax.GradientTransformationExtraArgs,
  grads: Any,
  opt: Mapping[str, Any],
  params: Any,
  owners: Any,
  present: Mapping[str, jax.Array] | None,
  context: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
  """(params, opt) after one update; leaves of what is not `present` stay (None: all move)."""
  updates, inner = tx.update(grads, opt["tx"], params, **context)
  after = {**opt, "tx": inner}
  if present is not None:
    owners = jax.tree.map(lambda l: l.modality or SHARED, owners)
    seen = present
    if "seen" in opt:
      seen, after["seen"] = since_moved(updates, owners, opt["seen"], present)
    updates = jax.tree.map(lambda u, owner: _where(seen[owner], u), updates, owners)
  return optax.apply_updates(params, updates), after


def guarded(losses: Mapping[str, jax.Array], total: jax.Array, grads: Any) -> dict[str, jax.Array]:
  """The log of an update: `losses`, the norm of the gradient, and "finite", which `fit` watches."""
  norm = tree.norm(grads)
  return {**losses, "gradient_norm": norm, "finite": jnp.isfinite(total) & jnp.isfinite(norm)}


def since_moved(updates, owners, before, now):
  """(who was present since their leaves moved last, the same after this update), {m or "shared": bool}.

  before, now: present in a batch since then, and in this one. A transform that accumulates
  (`optax.MultiSteps`) gives zeros until it emits, which may be on a batch without m. owners: names, leaf
  by leaf.
  """
  seen = {m: before[m] | now[m] for m in before}
  of: dict[str, list[jax.Array]] = {m: [] for m in seen}
  for u, owner in zip(jax.tree.leaves(updates), jax.tree.leaves(owners), strict=True):
    of[owner].append(u)
  length = lambda mine: sum((jnp.sum(jnp.abs(v)) for v in tree.few_vectors(mine)), jnp.zeros(()))
  moved = {m: length(mine) != 0 for m, mine in of.items()}
  return seen, {m: seen[m] & ~moved[m] for m in seen}


def _where(keep: jax.Array, u: jax.Array) -> jax.Array:
  """where(keep [], u, 0), as an `and` of bits: a NaN goes too.

  XLA compiles a select by a scalar as two loops, and again for each modality, whose scalar it may meet before
  or after the learning rate.
  """
  if not jnp.issubdtype(u.dtype, jnp.floating):
    return jnp.where(keep, u, jnp.zeros_like(u))
  bits = jax.lax.bitcast_convert_type(u, jnp.dtype(f"uint{8 * u.dtype.itemsize}"))
  mask = -keep.astype(bits.dtype)  # all ones, or zero
  return jax.lax.bitcast_convert_type(bits & mask, u.dtype)
