"""ExcessMTL: more weight to objectives far from their optimum, not to noisy ones. An aggregator.

He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao: "Robust Multi-Task Learning with Excess Risks",
ICML 2024.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups, _learned, _shared
from mmfuse.balancing._base import Aggregator

_EPS = 1e-7  # under the root, as in the released code
_TINY = 1e-30


class ExcessMtlState(NamedTuple):
  """Weights, and what the excess risks are measured with."""

  weights: jax.Array  # [K], multiplier of each gradient
  shares: jax.Array  # [K], weights / K, kept for objectives absent now
  squares: Any  # [K, *param], sums of the squared gradients; 0 where only one objective reaches
  first: jax.Array  # [K], first excess risk that was not 0


def excess_risks(stacked: Any, squares: Any, owners: Any = None) -> jax.Array:
  r"""e_k = \sum g_k^2 / sqrt(\sum_t g_k^2 + 1e-7) over the shared leaves, [K].

  A second-order estimate of L_k - min L_k, with AdaGrad's diagonal in the place of the Hessian.

  Args:
    stacked: gradients [K, *param].
    squares: sums [K, *param] of their squares over the steps, this one included.
    owners: tree of `tree.Owner`; None: every leaf is shared.
  """
  grads, sums = jax.tree.leaves(stacked), jax.tree.leaves(squares)
  num = grads[0].shape[0]
  total = jnp.zeros(num, jnp.float32)
  for i in _shared.shared_leaves(stacked, owners, num):
    g = grads[i].astype(jnp.float32)
    total = total + (g**2 / jnp.sqrt(sums[i] + _EPS)).reshape(num, -1).sum(1)
  return total


def aggregate_by_excess_mtl(num_objectives: int, step_size: float = 0.01) -> Aggregator:
  r"""w_k <- w_k exp(step_size e_k / e_k(first)), then \sum w = K; d = \sum_k w_k g_k.

  Gradients [K, *param] -> [*param]; e = `excess_risks`. The first step has weights 1. An objective
  with label noise has a high loss but, once trained, a small gradient: it is not pushed.

  Args:
    num_objectives: K >= 1.
    step_size: of the exponentiated gradient, >= 0 (released code, recalled: .01). 0 is the plain
      sum.

  With `owners`, heads keep their own plain gradient and are left out of the risks; the reference
  scales heads by w_k as well. An absent objective gets weight 0, and its share, squares and first
  risk stay as they are; the weights of the present ones sum to their number. Where the released
  code divides by the risk of step one, an objective whose first risk is 0 takes the first that is
  not.

  Raises:
    ValueError: a negative step_size, gradients of another K.
  """
  num_objectives = _groups.check_count(num_objectives)
  if not step_size >= 0:
    raise ValueError(f"step_size must be at least 0, got {step_size}")

  def init_fn(params):
    squares = jax.tree.map(lambda p: jnp.zeros((num_objectives, *p.shape), jnp.float32), params)
    return ExcessMtlState(
      jnp.ones(num_objectives, jnp.float32),
      _groups.uniform_weights(num_objectives),
      squares,
      jnp.zeros(num_objectives, jnp.float32),
    )

  def update_fn(updates, state, params=None, *, owners=None, present=None, **extra_args):
    del params, extra_args
    _groups.check_stacked(updates, num_objectives)
    here = _groups.everyone(present, num_objectives)
    squares = _accumulate(state.squares, updates, owners, here)
    risks = excess_risks(updates, squares, owners)
    known = state.first > 0
    growth = jnp.where(known, risks / jnp.where(known, state.first, 1.0), 0.0)
    first = jnp.where(here & ~known, risks, state.first)
    old, mass = _learned.among(state.shares, here)
    # In logarithms: the exponential of a risk that has grown a lot would overflow.
    new = _learned.softmax(jnp.log(jnp.maximum(old, _TINY)) + step_size * growth, here)
    weights = new * here.sum()
    direction = _shared.combine_shared(weights, updates, owners, here)
    shares = _learned.back(new, mass, state.shares, here)
    return direction, ExcessMtlState(weights, shares, squares, first)

  return Aggregator(init_fn, update_fn)


def _accumulate(squares: Any, updates: Any, owners: Any, present: jax.Array) -> Any:
  sums, treedef = jax.tree.flatten(squares)
  grads = jax.tree.leaves(updates)
  for i in _shared.shared_leaves(updates, owners, present.shape[0]):
    here = _shared.column(present, grads[i])
    sums[i] = sums[i] + jnp.where(here, grads[i].astype(jnp.float32), 0.0) ** 2
  return jax.tree.unflatten(treedef, sums)


excess_mtl = aggregate_by_excess_mtl
