"""Aligned-MTL: the nearest gradients with equal principal components. An aggregator.

Senushkin, Patakin, Kuznetsov, Konushin: "Independent Component Alignment for Multi-Task Learning",
CVPR 2023.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._gram_rule import gram_rule, sum_to_count


class AlignedMtlState(NamedTuple):
  """What the alignment decided last."""

  weights: jax.Array  # [K], column sums of B: multiplier of each gradient; may be negative


def aligned_mtl_weights(gram: jax.Array, present: jax.Array | None = None) -> jax.Array:
  r"""Column sums [K] of B = sqrt(l_min) V l^{-1/2} V^T, from A = G G^T = V diag(l) V^T [K, K].

  B G has all its singular values equal to the smallest of G. Eigenvalues <= max(l) K eps (float32)
  are dropped, and l_min is the smallest that is left: linearly dependent, absent and zero gradients
  drop out by themselves.

  Args:
    gram: A.
    present: bool [K]; absent objectives get 0.
  """
  num = gram.shape[0]
  here = _groups.everyone(present, num)
  gram = jnp.where(here[:, None] & here[None, :], gram, 0.0).astype(jnp.float32)
  # Longest gradient first: the small eigenvalues of a graded matrix are then accurate in float32.
  order = jnp.argsort(-jnp.diagonal(gram))
  gram = gram[order][:, order]
  top = gram[0, 0]
  values, vectors = jnp.linalg.eigh(gram / jnp.where(top > 0, top, 1.0))
  kept = values > values[-1] * num * jnp.finfo(jnp.float32).eps
  least = jnp.min(jnp.where(kept, values, jnp.inf))
  ratio = jnp.where(kept, least / jnp.where(kept, values, 1.0), 0.0)
  weights = jnp.zeros(num).at[order].set(vectors @ (jnp.sqrt(ratio) * vectors.sum(0)))
  return jnp.where(here, jnp.where(top > 0, weights, 1.0), 0.0)


def aggregate_by_aligned_mtl(
  num_objectives: int, *, rescale: str = "none", scope: str = "global"
) -> Aggregator:
  r"""d = \sum_k b_k g_k, the sum of the aligned gradients; gradients [K, *param] -> [*param].

  Orthogonal gradients of one length are left as they are; longer ones are shortened to the weakest
  principal component, so that no direction dominates. d . g_i is the i-th row sum of
  sqrt(l_min) A^{1/2}: nearly always positive, but d may oppose an objective for K >= 3. As
  published, the encoders stop once one objective is solved (l_min tends to 0): rescale="sum" helps
  only the scale.

  Args:
    num_objectives: K >= 1.
    rescale: "none" = as published: aligned gradients have the length of the weakest component;
      "sum" = weights scaled to sum to the number of present objectives.
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder and
      one for the rest. Needs owners.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: an unknown option, gradients of another K.
  """
  return gram_rule(
    num_objectives,
    aligned_mtl_weights,
    AlignedMtlState,
    rescale=rescale,
    scope=scope,
    to_count=sum_to_count,
  )


aligned_mtl = aggregate_by_aligned_mtl
