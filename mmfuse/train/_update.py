"""What every step does with a gradient: the optimiser, what is absent stays where it is, the log."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import tree

SHARED = "shared"  # the leaves of no modality, among those that wait for a row (`freeze_absent`)


def init_opt(
  tx: optax.GradientTransformation, params: Any, modalities: Sequence[str], coast: bool = False
) -> dict[str, Any]:
  """{"tx": the optimiser's state, "seen": who was present since it moved last, unless `coast`}."""
  opt: dict[str, Any] = {"tx": tx.init(params)}
  if not coast:
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
    updates, after["seen"] = freeze_absent(updates, owners, opt["seen"], present)
  return optax.apply_updates(params, updates), after


def guarded(losses: Mapping[str, jax.Array], total: jax.Array, grads: Any) -> dict[str, jax.Array]:
  """The log of an update: `losses`, the norm of the gradient, and "finite", which `fit` watches."""
  norm = tree.norm(grads)
  return {**losses, "gradient_norm": norm, "finite": jnp.isfinite(total) & jnp.isfinite(norm)}


def freeze_absent(updates, owners, before, now):
  """(updates, seen): zero for the leaves of a modality absent since they moved last.

  before, now {m or "shared": bool}: present in a batch since then, and in this one. A transform that
  accumulates (`optax.MultiSteps`) gives zeros until it emits, which may be on a batch without m.
  """
  owners = jax.tree.map(lambda l: l.modality or SHARED, owners)
  seen = {m: before[m] | now[m] for m in before}
  of: dict[str, list[jax.Array]] = {m: [] for m in seen}
  for u, owner in zip(jax.tree.leaves(updates), jax.tree.leaves(owners), strict=True):
    of[owner].append(u)
  length = lambda mine: sum((jnp.sum(jnp.abs(v)) for v in tree.few_vectors(mine)), jnp.zeros(()))
  moved = {m: length(mine) != 0 for m, mine in of.items()}
  frozen = jax.tree.map(lambda u, o: jnp.where(seen[o], u, jnp.zeros_like(u)), updates, owners)
  return frozen, {m: seen[m] & ~moved[m] for m in seen}
