"""GradDrop: element by element pick a sign and keep the gradients that have it. An aggregator.

Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov: "Just Pick a Sign: Optimizing Deep Multitask
Models with Gradient Sign Dropout", NeurIPS 2020.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import draws
from mmfuse.balancing import _groups, _shared
from mmfuse.balancing._base import Aggregator

_TINY = 1e-30


class GradDropState(NamedTuple):
  """How much of each gradient survived last."""

  weights: jax.Array  # [K], kept share of \sum |g_k| over the shared parameters


def sign_purity(grads: jax.Array) -> jax.Array:
  r"""P = (1 + \sum_k g_k / \sum_k |g_k|) / 2 in [0, 1], [K, ...] -> [...]; .5 where all are 0."""
  size = jnp.sum(jnp.abs(grads), axis=0)
  return 0.5 * (1.0 + jnp.sum(grads, axis=0) / jnp.maximum(size, _TINY))


def sign_mask(grads: jax.Array, uniform: jax.Array) -> jax.Array:
  """1[P > U] 1[g_k > 0] + 1[P < U] 1[g_k < 0], bool [K, ...], from U in [0, 1) [...]."""
  up = (sign_purity(grads) > uniform)[None]
  return jnp.where(up, grads > 0, grads < 0)


def aggregate_by_graddrop(num_objectives: int, leak: float = 0.0) -> Aggregator:
  r"""d = \sum_k (leak + (1 - leak) M_k) g_k, M_k = `sign_mask`; [K, *param] -> [*param].

  Element by element one sign is drawn, positive with probability P = `sign_purity`. Its expectation
  is P \sum_+ g + (1 - P) \sum_- g. Gradients of one sign are all kept, as in the plain sum.

  Args:
    num_objectives: K >= 1.
    leak: share of a gradient let through in spite of its sign, in [0, 1] (paper and reference code:
      0). 1 is the plain sum.

  Needs `key` as extra argument. The paper masks the gradients at one shared layer of activations,
  signed by the activations; here the shared parameters' own gradients are masked, or those of the
  features with `supervised(aggregate_on="features")`, where each row draws its own signs; the paper
  draws one per feature. With `owners`, heads keep their own plain
  gradient. An absent objective has no vote and adds nothing; there is no state to keep.

  Raises:
    ValueError: a leak outside [0, 1], gradients of another K.
  """
  num_objectives = _groups.check_count(num_objectives)
  if not 0 <= leak <= 1:
    raise ValueError(f"leak must lie in [0, 1], got {leak}")

  def init_fn(params):
    del params
    return GradDropState(jnp.ones(num_objectives, jnp.float32))

  def update_fn(updates, state, params=None, *, key, owners=None, present=None, **extra_args):
    del state, params, extra_args
    _groups.check_stacked(updates, num_objectives)
    here = _groups.everyone(present, num_objectives)
    leaves, treedef = jax.tree.flatten(updates)
    kept, total = (jnp.zeros(num_objectives, jnp.float32) for _ in range(2))
    masked = list(leaves)
    shared = _shared.shared_leaves(updates, owners, num_objectives)
    uniforms = draws.split(jax.random.uniform, key, [leaves[i].shape[1:] for i in shared])
    for i, uniform in zip(shared, uniforms, strict=True):
      leaf = jnp.where(_shared.column(here, leaves[i]), leaves[i], 0).astype(jnp.float32)
      masked[i] = (leak + (1.0 - leak) * sign_mask(leaf, uniform)) * leaf
      kept = kept + _size(masked[i])
      total = total + _size(leaf)
    direction = _shared.map_shared(
      lambda reach, _, m: m.sum(0), updates, owners, here, jax.tree.unflatten(treedef, masked)
    )
    weights = jnp.where(total > 0, kept / jnp.where(total > 0, total, 1.0), here)
    return direction, GradDropState(weights.astype(jnp.float32))

  return Aggregator(init_fn, update_fn)


def _size(leaf: jax.Array) -> jax.Array:
  return jnp.abs(leaf.reshape(leaf.shape[0], -1)).sum(1)


graddrop = aggregate_by_graddrop
