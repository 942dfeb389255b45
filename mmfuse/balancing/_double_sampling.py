"""What rules by double sampling share: two batches weigh the objectives, a third is descended."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import tree
from mmfuse.balancing import _groups, _learned, _shared
from mmfuse.balancing._base import Aggregator

PARTS = 3  # independent batches that these rules ask for

Search = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Mix = Callable[[jax.Array, jax.Array], jax.Array]


def three_batches(parts: Any, updates: Any) -> tuple[Any, Any, Any]:
  """Gradients [K, *param] of two batches to weigh by and of one to descend, from [S, K, *param].

  S >= 3: parts 0 and 1, then the mean of the rest. S = 2: the mean of both is descended, so that
  weights and direction are correlated. Without parts all three are `updates`.

  Raises:
    ValueError: only one part.
  """
  if parts is None:
    return updates, updates, updates
  count = jax.tree.leaves(parts)[0].shape[0]
  if count < 2:
    raise ValueError(f"double sampling needs parts= of at least 2 batches, got {count}")
  first, second = (jax.tree.map(lambda p, s=s: p[s], parts) for s in (0, 1))
  if count == 2:
    return first, second, updates
  return first, second, jax.tree.map(lambda p: p[2:].mean(0), parts)


def double_sampling(
  num_objectives: int,
  search: Search,
  make_state: Callable[[jax.Array, jax.Array], Any],
  *,
  rescale: str,
  mix: Mix = lambda shares, present: shares,
) -> Aggregator:
  r"""d = \sum_k w_k g3_k, w = mix(lam), lam <- search(G1 G2^T, lam, seen) on the simplex.

  Args:
    num_objectives: K >= 1, checked.
    search: (gram [K, K], shares [K] that sum to 1 over seen, seen bool [K]) -> shares.
    make_state: (weights [K], shares [K]) -> the state, a tuple in this order.
    rescale: one of `_groups.RESCALE`, checked.
    mix: (shares [K], present [K]) -> weights [K]; default the shares.
  """

  def init_fn(params):
    del params
    uniform = _groups.uniform_weights(num_objectives)
    return make_state(uniform, uniform)

  def update_fn(
    updates, state, params=None, *, parts=None, owners=None, present=None, **extra_args
  ):
    del params, extra_args
    _groups.check_stacked(updates, num_objectives)
    here = _groups.everyone(present, num_objectives)
    first, second, third = three_batches(parts, updates)
    gram = _shared.cross_gram(first, second, owners, num_objectives)
    own = (_shared.nonzero_rows(g, owners, num_objectives) for g in (first, second))
    shares, kept = _learned.decide_among(
      lambda start, seen: search(gram, start, seen), state.shares, here, jnp.logical_and(*own)
    )
    weights = _groups.rescaled(mix(shares, here), here, rescale)
    direction = _shared.map_shared(
      lambda reach, _, g: tree.combine(weights, g, reach), updates, owners, here, third
    )
    return direction, make_state(weights, kept)

  return Aggregator(init_fn, update_fn)
