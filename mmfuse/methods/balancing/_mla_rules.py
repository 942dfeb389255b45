r"""MLA's two rules: the projection of the shared head's gradient, and fusion by entropy.

Zhang, Yoon, Bansal, Yao: "Multimodal Representation Learning by Alternating Unimodal Adaptation",
CVPR 2024. The alternation is `_mla.py`. The released code never reaches its projection (it
looks for the head under a name that the head does not have), so the variants are equations to
compare, not one truth: "rls" is the paper's recursion, "released" and "bb_add" are codes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing._groups import check_choice

PROJECTIONS = ("rls", "released", "bb_add", "off")
FUSIONS = ("sample", "batch", "mean")


class ProjectionState(NamedTuple):
  """What the projection remembers of the features that the head has seen."""

  matrix: jax.Array  # P [D, D], symmetric
  updates: jax.Array  # int32, of the head so far


def init_projection(width: int) -> ProjectionState:
  """P = I [D, D], no update yet."""
  return ProjectionState(jnp.eye(width, dtype=jnp.float32), jnp.zeros((), jnp.int32))


def rls_matrix(matrix: jax.Array, mean: jax.Array, alpha: jax.Array | float) -> jax.Array:
  r"""P - (P h)(P h)^T / (alpha + h^T P h): recursive least squares, P_n = (I + \sum h h^T / alpha)^-1.

  matrix: P [D, D]; mean: h [D], the mean feature of a batch; alpha > 0. P stays symmetric positive.
  """
  k = matrix @ mean
  return matrix - jnp.outer(k, k) / (alpha + mean @ k)


def released_matrix(matrix: jax.Array, mean: jax.Array, alpha: jax.Array | float) -> jax.Array:
  """P' / |P'|_F with P' = P - k k^T / (alpha + k h^T), k = P h, the division entry by entry.

  As the authors' code writes it: it divides by the outer product k h^T [D, D], not by the scalar
  h^T k. P' need not be symmetric, and has a pole where k_i h_j = -alpha.
  """
  k = matrix @ mean
  matrix = matrix - jnp.outer(k, k) / (alpha + jnp.outer(k, mean))
  return matrix / jnp.linalg.norm(matrix)


def released_alpha(batch: jax.Array, batches: jax.Array, start: float = 0.1) -> jax.Array:
  """start^(batch / batches + 1): .1 at the first batch of an epoch, falling to .01, every epoch."""
  return jnp.asarray(start, jnp.float32) ** (batch / jnp.maximum(batches, 1) + 1)


def step_projection(
  state: ProjectionState,
  mean: jax.Array,
  alpha: jax.Array | float,
  projection: str = "rls",
) -> ProjectionState:
  """The state after an update of the head on features of mean `mean` [D]; the first leaves P = I.

  projection: "rls", "released" or "bb_add" (whose P is the released one).
  """
  mean = mean.astype(jnp.float32)
  move = rls_matrix if projection == "rls" else released_matrix
  moved = move(state.matrix, mean, alpha)
  return ProjectionState(jnp.where(state.updates > 0, moved, state.matrix), state.updates + 1)


def project(state: ProjectionState, gradient: jax.Array, projection: str = "rls") -> jax.Array:
  """P G of the gradient G [D, C] of the head's kernel; G + P G for "bb_add".

  `state` is the one after `step_projection`; after the first update of all the gradient passes as
  it is. The bias is no business of the projection.
  """
  projected = (state.matrix @ gradient.astype(jnp.float32)).astype(gradient.dtype)
  added = gradient + projected if projection == "bb_add" else projected
  return jnp.where(state.updates > 1, added, gradient)


def entropies(logits: jax.Array, mask: jax.Array, fusion: str = "sample") -> jax.Array:
  r"""H [B] in nats of one modality's logits z [B, C].

  "sample": H_i = -\sum_c p_ic log p_ic, p_i the softmax over classes (paper). "batch": the same
  number for all rows, -\sum_ic p_ic log p_ic, p_.c the softmax over the rows that have the modality
  (mask [B]) as the authors' evaluation takes it: it depends on who shares the batch.
  """
  logits = logits.astype(jnp.float32)
  if fusion == "sample":
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
  there = mask[:, None]
  log_p = jax.nn.log_softmax(jnp.where(there, logits, -jnp.inf), axis=0)
  log_p = jnp.where(there, log_p, 0.0)
  total = -jnp.sum(jnp.where(there, jnp.exp(log_p) * log_p, 0.0))
  return jnp.broadcast_to(total, mask.shape)


def entropy_weights(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], fusion: str = "sample"
) -> dict[str, jax.Array]:
  r"""lambda_m = exp(-H_m) / \sum_j exp(-H_j) over the modalities that a row has: {m: [B]}.

  logits {m: [B, C]}, mask {m: bool [B]}; fusion "sample" or "batch" as in `entropies`, "mean" for
  1/M. An absent modality has weight exactly 0; a row that has none has weights 0. Per row the
  largest weight is at most C times the smallest.

  Raises:
    ValueError: an unknown fusion.
  """
  check_choice("fusion", fusion, FUSIONS)
  names = sorted(logits)
  present = jnp.stack([mask[m] for m in names])
  if fusion == "mean":
    score = jnp.zeros(present.shape, jnp.float32)
  else:
    score = -jnp.stack([entropies(logits[m], mask[m], fusion) for m in names])
  # Absent scores must not reach the softmax: all of them absent would give NaN.
  top = jnp.max(jnp.where(present, score, -jnp.inf), axis=0, keepdims=True, initial=-1e30)
  raw = jnp.where(present, jnp.exp(jnp.where(present, score - top, 0.0)), 0.0)
  total = raw.sum(0, keepdims=True)
  return dict(zip(names, raw / jnp.where(total > 0, total, 1.0)))


def fuse(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], fusion: str = "sample"
) -> jax.Array:
  r"""\sum_m lambda_m z_m [B, C] with the weights of `entropy_weights`; 0 for a row that has nothing."""
  weights = entropy_weights(logits, mask, fusion)
  return jnp.stack(
    [
      jnp.where(mask[m][:, None], weights[m][:, None].astype(z.dtype) * z, jnp.zeros((), z.dtype))
      for m, z in sorted(logits.items())
    ]
  ).sum(0)
