"""IMTL-G: the direction whose projections on all unit gradients are equal. An aggregator.

Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang: "Towards Impartial Multi-task Learning", ICLR 2021.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._gram_rule import gram_rule, unit_gram

_FLOOR = 1e-5  # of the eigenvalues of C: below it float32 cosines are rounding
_CANCELLED = 1e-3  # \sum b relative to \sum |b| at which normalising by it is no longer safe


class ImtlGState(NamedTuple):
  """What the equations decided last."""

  weights: jax.Array  # [K], sum to 1 (or to the number of present objectives); may be negative


def imtl_g_weights(
  gram: jax.Array, present: jax.Array | None = None, *, guard: bool = True
) -> jax.Array:
  r"""Weights [K] with \sum a = 1 and d . u_i the same for all i; A [K, K], u_i = g_i / n_i.

  The published a_{2:} = g_1 U^T (D U^T)^-1 is the solution of C b = 1, a_k = (b_k / n_k) / \sum_j
  b_j / n_j, with the cosines C; K = 2: a_1 = n_2 / (n_1 + n_2). Written so, it does not single out
  the first objective. Eigenvalues of C below 1e-5 count as 1e-5: parallel gradients share the
  weight of one, and opposite ones cancel.

  Args:
    gram: A = G G^T [K, K].
    present: bool [K]; absent objectives get 0. With a zero gradient among the present ones the
      rule is undefined: equal weights on the others.
    guard: the sum of the raw weights can be zero or negative (a weak gradient with a negative
      weight); normalised by it, d explodes or ascends every objective. True = equal weights then;
      False = as published.
  """
  here = _groups.everyone(present, gram.shape[0])
  cosines, norms, moving = unit_gram(gram, here)
  values, vectors = jnp.linalg.eigh(cosines)
  ones = moving.astype(jnp.float32)
  share = vectors.T @ ones
  # A null direction of parallel gradients is orthogonal to 1; what it shows is rounding.
  share = jnp.where((values < _FLOOR) & (jnp.abs(share) < 1e-3), 0.0, share)
  solved = vectors @ (share / jnp.maximum(values, _FLOOR))
  raw = jnp.where(moving, solved / norms, 0.0)
  total, size = raw.sum(), jnp.abs(raw).sum()
  usable = (total > _CANCELLED * size) if guard else (total != 0)
  usable = usable & jnp.all(moving | ~here)
  # Nobody moves: the weights say who is present, and multiply zeros.
  fair = jnp.where(moving.any(), ones, here.astype(jnp.float32))
  equal = fair / jnp.maximum(fair.sum(), 1.0)
  return jnp.where(usable, raw / jnp.where(usable, total, 1.0), equal)


def aggregate_by_imtl_g(
  num_objectives: int, *, guard: bool = True, rescale: str = "none", scope: str = "global"
) -> Aggregator:
  r"""d = \sum_k a_k g_k with d . g_i / |g_i| equal for all i; gradients [K, *param] -> [*param].

  While the sum of the raw weights is positive, the direction does not depend on the scale of the
  losses and, with linearly independent gradients, descends every objective. For K >= 3 weights may
  be negative, and d may be zero at points that are not Pareto-stationary.

  Args:
    num_objectives: K >= 1.
    guard: see `imtl_g_weights`; False = as published.
    rescale: "none" = weights sum to 1, as published; "sum" = to the number of present objectives.
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest. Needs owners.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: an unknown option, gradients of another K.
  """
  weights_of = functools.partial(imtl_g_weights, guard=guard)
  return gram_rule(num_objectives, weights_of, ImtlGState, rescale=rescale, scope=scope)


imtl_g = aggregate_by_imtl_g
