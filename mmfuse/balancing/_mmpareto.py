"""MMPareto: per encoder, the Pareto direction of fused and own objective. An aggregator.

Wei and Hu: "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance", ICML 2024.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import tree
from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._min_norm import min_norm_pair

_RESCALE = ("tensor", "encoder")


class MmparetoState(NamedTuple):
  """What the encoders' solvers decided last."""

  weights: jax.Array  # [K]: of modality m the k_1 of its encoder; of the fused one the mean k_0
  cosines: jax.Array  # [K], of fused and own gradient in encoder m; entry 0 is their mean


def pareto_pair(a: jax.Array, b: jax.Array, d: jax.Array) -> jax.Array:
  """(k_0, k_1) from g_0.g_0, g_0.g_1, g_1.g_1: .5 each without conflict, else min-norm weights."""
  first = jnp.where(b > 0, 0.5, min_norm_pair(a, b, d, clip_ends=True))
  return jnp.stack([first, 1.0 - first]).astype(jnp.float32)


def _squared(leaves: Sequence[jax.Array]) -> jax.Array:
  return tree.dot(list(leaves), list(leaves))


def _grown(mixed: jax.Array, target: jax.Array) -> jax.Array:
  """max(|target| / |mixed|, 1) from squared norms; 1 where mixed is zero."""
  safe = jnp.where(mixed > 0, mixed, 1.0)
  return jnp.where(mixed > 0, jnp.maximum(jnp.sqrt(target / safe), 1.0), 1.0)


def pareto_encoder(
  fused: list, own: list, gamma: float, rescale: str = "tensor"
) -> tuple[list, Any, Any]:
  r"""n = 2 k_0 g_0 + 2 k_1 g_1; gamma n max(|g_0 + g_1| / |n|, 1) for the tensors of one encoder.

  The norm ratio is per tensor in the released code ("tensor") and per encoder in the paper.
  Returns (direction, k [2], cosine).
  """
  a, b, d = _squared(fused), tree.dot(fused, own), _squared(own)
  k = pareto_pair(a, b, d)
  mixed = [
    2.0 * k[0].astype(f.dtype) * f + 2.0 * k[1].astype(f.dtype) * o for f, o in zip(fused, own)
  ]
  plain = [f + o for f, o in zip(fused, own)]
  if rescale == "encoder":
    factors = [_grown(_squared(mixed), _squared(plain))] * len(mixed)
  else:
    factors = [_grown(_squared([n]), _squared([p])) for n, p in zip(mixed, plain)]
  out = [gamma * n * f.astype(n.dtype) for n, f in zip(mixed, factors)]
  norms = jnp.sqrt(a) * jnp.sqrt(d)
  return out, k, b / jnp.where(norms > 0, norms, 1.0)


def aggregate_by_mmpareto(
  num_objectives: int,
  gamma: float = 1.5,
  *,
  modalities: Sequence[str] | None = None,
  rescale: str = "tensor",
) -> Aggregator:
  r"""Encoder m: gamma (2 k_0 g_0 + 2 k_1 g_m), scaled up to |g_0 + g_m| where shorter.

  Gradients [K, *param] -> [*param]. k = (.5, .5) if g_0 . g_m > 0, else the min-norm weights with
  ends .999 and .001. Heads and shared leaves get the plain sum.
  Without conflict it is gamma times the uniform sum. An absent objective counts as a zero gradient,
  which leaves gamma times the other one.

  Args:
    num_objectives: K = 1 + M; row 0 the fused objective, then the modalities in sorted order.
    gamma: > 0, scale of the encoders' gradients (released code: 1.5).
    modalities: names of the encoders' subtrees, where the step passes no `owners`.
    rescale: "tensor" = norms compared tensor by tensor (released code); "encoder" = over the whole
      encoder (paper).

  Raises:
    ValueError: gamma not positive, an unknown option, gradients of another K, a number of
      modalities other than K - 1, neither `owners` nor `modalities`.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("rescale", rescale, _RESCALE)
  if not gamma > 0:
    raise ValueError(f"gamma must be positive, got {gamma}")
  if modalities is not None and len(set(modalities)) != num_objectives - 1:
    raise ValueError(
      f"{num_objectives} objectives are 1 fused and {num_objectives - 1} modalities; "
      f"got the modalities {', '.join(sorted(modalities))}"
    )

  def init_fn(params):
    del params
    return MmparetoState(
      jnp.full(num_objectives, 0.5, jnp.float32), jnp.zeros(num_objectives, jnp.float32)
    )

  def update_fn(updates, state, params=None, *, owners=None, present=None, **extra_args):
    del state, params, extra_args
    _groups.check_stacked(updates, num_objectives)
    if owners is None:
      if modalities is None:
        raise ValueError(
          "MMPareto must know the encoders: give modalities=('audio', ...) to "
          "aggregate_by_mmpareto, or pass owners= to update"
        )
      owners = tree.owners_of(updates, modalities)
    return _update(updates, owners, _groups.everyone(present, num_objectives), gamma, rescale)

  return Aggregator(init_fn, update_fn)


def _update(updates, owners, present, gamma, rescale):
  leaves, treedef = jax.tree.flatten(updates)
  tags, num = jax.tree.leaves(owners), present.shape[0]
  here = present.astype(jnp.float32)
  rows = [_groups.reach(t, num) for t in tags]
  out = [tree.combine(here, leaf, tree.Owner(None, "shared", r)) for leaf, r in zip(leaves, rows)]
  weights, cosines = jnp.zeros(num, jnp.float32), jnp.zeros(num, jnp.float32)
  encoders = sorted({t.modality for t in tags if t.part == "encoder"})
  order = _groups.modality_order(tags)
  for name in encoders:
    inside = [i for i, t in enumerate(tags) if t.part == "encoder" and t.modality == name]
    fused, own = _fused_and_own(leaves, rows, inside, here)
    direction, k, cosine = pareto_encoder(fused, own, gamma, rescale)
    for i, leaf in zip(inside, direction):
      out[i] = leaf
    row = 1 + order.index(name)
    if row < num:
      both = here[0] * here[row]
      weights = weights.at[row].set(jnp.where(both > 0, k[1], here[row]))
      weights = weights.at[0].add(jnp.where(both > 0, k[0], here[0]) / len(encoders))
      cosines = cosines.at[row].set(cosine * both)
  if num == 1 or not encoders:
    weights = here
  cosines = cosines.at[0].set(cosines[1:].sum() / jnp.maximum(here[1:].sum(), 1.0))
  return jax.tree.unflatten(treedef, out), MmparetoState(weights, cosines)


def _fused_and_own(leaves, rows, inside, here):
  """g_0 and the sum of the uni-modal rows, of which late fusion leaves only the own one."""

  def part(i, wanted):
    chosen = tuple(k for k in rows[i] if wanted(k))
    return tree.combine(here, leaves[i], tree.Owner(None, "shared", chosen))

  return [part(i, lambda k: k == 0) for i in inside], [part(i, lambda k: k > 0) for i in inside]
