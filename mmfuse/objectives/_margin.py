"""Margin-aware distillation (MAD): a student keeps how alike its teacher finds the rows of a batch.

Wei, Luo and Luo, MMANet: Margin-aware Distillation and Modality-aware Regularization for Incomplete
Multimodal Learning, CVPR 2023. Rows of which the teacher is unsure, near the margin, weigh more.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmfuse.encoders._segments import shares

VARIANTS = ("intended", "released")
AXES = ("row", "column")
_LEAST = 1e-12  # the least length that a row of similarities is divided by, torch's

_matmul = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def check_variant(variant: str) -> None:
  """Raises ValueError for an unknown variant."""
  if variant not in VARIANTS:
    raise ValueError(f"unknown variant {variant!r}; expected one of: {', '.join(VARIANTS)}")


def check_axis(axis: str) -> None:
  """Raises ValueError for an unknown axis of the weights."""
  if axis not in AXES:
    raise ValueError(f"unknown weight_axis {axis!r}; expected one of: {', '.join(AXES)}")


def teacher_entropy(logits: jax.Array, variant: str = "intended") -> jax.Array:
  """H_i = -sum_k q_ik ln q_ik, q = softmax(logits); nats [B].

  Args:
    logits: [B, K], or [B, ..., K]: several distributions, whose entropies add up.
    variant: "released": NaN where a probability is exactly 0, 0 ln 0 in the authors' code.
  """
  logits = logits.astype(jnp.float32)
  q = jax.nn.softmax(logits)
  log_q = jnp.log(q) if variant == "released" else jax.nn.log_softmax(logits)
  return -jnp.sum(q * log_q, axis=tuple(range(1, logits.ndim)))


def entropy_weights(entropy: jax.Array, weight: jax.Array, variant: str = "intended") -> jax.Array:
  """w_i = u_i H_i / sum_j u_j H_j [B], u the weight of a row; u_i / sum_j u_j where all H are 0.

  Args:
    entropy: H [B].
    weight: u [B]; a row of weight 0 is never read.
    variant: "released": 0 / 0 = NaN there, as in the authors' code.
  """
  share = jnp.where(weight > 0, weight * entropy, 0.0)
  total = share.sum()
  if variant == "released":
    return share / total
  plain = weight / jnp.maximum(weight.sum(), jnp.finfo(jnp.float32).tiny)
  return jnp.where(total > 0, share / jnp.where(total > 0, total, 1.0), plain)


def _normalised(
  features: jax.Array, weight: jax.Array, groups: jax.Array, variant: str
) -> jax.Array:
  """Rows of G = F F^T [B, B], within each group of columns divided by their length there.

  features [B, ...], flattened; groups [B, g], of which every column is in one.
  """
  flat = features.reshape(features.shape[0], -1).astype(jnp.float32)
  here = weight > 0
  if variant == "intended":
    # A row of zeros has no direction: no gradient through its own length, nor as a column.
    here = here & jnp.any(flat != 0, axis=-1)
  flat = jnp.where(here[:, None], flat, 0.0)
  gram = _matmul(flat, flat.T)
  square = _matmul(jnp.square(gram), groups)
  if variant == "released":
    inverse = 1.0 / jnp.sqrt(jnp.maximum(square, _LEAST**2))
  else:
    there = square > _LEAST**2
    inverse = jnp.where(there, 1.0 / jnp.sqrt(jnp.where(there, square, 1.0)), 0.0)
  return gram * _matmul(inverse, groups.T)


def _differences(student, teacher, weight, groups, variant: str) -> jax.Array:
  """Squared differences [B, B] of the rows of both; the teacher is a constant."""
  own, its = (
    _normalised(x, weight, groups, variant) for x in (student, jax.lax.stop_gradient(teacher))
  )
  return jnp.square(own - its)


def _counted(student: jax.Array, weight: jax.Array | None) -> jax.Array:
  return jnp.ones(student.shape[0]) if weight is None else weight.astype(jnp.float32)


def similarity_distillation(
  student: jax.Array,
  teacher: jax.Array,
  weight: jax.Array | None = None,
  *,
  variant: str = "intended",
) -> jax.Array:
  r"""SP = (1/B^2) \sum_{ij} (G^s_ij / |G^s_i| - G^t_ij / |G^t_i|)^2, G = F F^T; scalar.

  The same for all rows: what `margin_distillation` is compared with.

  Args:
    student, teacher: F [B, ...], flattened; the teacher is a constant.
    weight: [B], of the rows and the columns; a row of weight 0 is never read. None = 1 each.
    variant: of the gradient of a row of zeros, as there.

  Raises:
    ValueError: an unknown variant.
  """
  check_variant(variant)
  u = _counted(student, weight)
  found = _differences(student, teacher, u, jnp.ones((u.shape[0], 1)), variant)
  total = u.sum()
  return u @ found @ u / jnp.where(total > 0, jnp.square(total), 1.0)


def margin_distillation(
  student: jax.Array,
  teacher: jax.Array,
  teacher_logits: jax.Array,
  weight: jax.Array | None = None,
  *,
  weight_axis: str = "row",
  variant: str = "intended",
) -> jax.Array:
  r"""L = \sum_{ij} w_i (G^s_ij / |G^s_i| - G^t_ij / |G^t_i|)^2, G = F F^T, w_i = H_i / \sum_j H_j; scalar.

  H is the entropy of the teacher's prediction. 0 where F^s is F^t scaled or turned, at most 4.

  Args:
    student, teacher: F [B, ...], flattened; the teacher is a constant.
    teacher_logits: [B, K], or [B, L, 2] of labels that are told one by one, whose entropies add up.
    weight: [B]; a row of weight 0 is never read. None = 1 each.
    weight_axis: "row" (default) weighs what is said of row i by w_i; "column" puts w_j, as the
      released classification code does.
    variant: "intended" (default): a row of zeros has no gradient, w_i = 1 / B where the teacher is sure of
      every row. "released": the length of such a row is held at 1e-12, whence gradients of 1e11, and a
      probability that is exactly 0 makes everything NaN.

  Raises:
    ValueError: an unknown axis or variant.
  """
  check_variant(variant)
  check_axis(weight_axis)
  u = _counted(student, weight)
  w = entropy_weights(teacher_entropy(jax.lax.stop_gradient(teacher_logits), variant), u, variant)
  found = _differences(student, teacher, u, jnp.ones((u.shape[0], 1)), variant)
  return found.sum(int(weight_axis == "row")) @ w


def dense_margin_distillation(
  student: jax.Array,
  teacher: jax.Array,
  teacher_logits: jax.Array,
  weight: jax.Array | None = None,
  *,
  most: Sequence[int] = (30, 40),
  variant: str = "intended",
) -> jax.Array:
  r"""`margin_distillation` of maps, whose rows are the N = B H W pixels of the batch; scalar.

  L = \sum_i w_i \sum_h \sum_{j in h} (G^s_ij / |G^s_ih| - G^t_ij / |G^t_ih|)^2: the columns are the halves
  h = [0, N // 2) and [N // 2, N), and |G_ih| is the length of row i within a half. One scale: add those
  of several. The authors' recipe reads "logits" off a decoder's feature map and lets the teacher's
  batch norm run on; give class logits of a teacher in evaluation mode.

  Args:
    student, teacher: [B, H, W, D]; the teacher is a constant.
    teacher_logits: [B, h, w, K], averaged to the size of the features.
    weight: [B]; an image of weight 0 is never read. None = 1 each.
    most: maps higher than most[0] are averaged to this size first; default 30 x 40, the authors'.
    variant: as there.

  Raises:
    ValueError: an unknown variant.
  """
  check_variant(variant)
  if student.shape[1] > most[0]:
    student, teacher = (_resized(x, most) for x in (student, teacher))
  size = student.shape[1:3]
  pixels = lambda x: _resized(x, size).reshape(-1, x.shape[-1])
  u = jnp.repeat(_counted(student, weight), size[0] * size[1])
  entropy = teacher_entropy(pixels(jax.lax.stop_gradient(teacher_logits)), variant)
  count = (u > 0).sum()
  first = (jnp.cumsum(u > 0) <= count // 2).astype(jnp.float32)
  halves = jnp.stack([first, 1.0 - first], axis=1)
  found = _differences(pixels(student), pixels(teacher), u, halves, variant)
  return found.sum(1) @ entropy_weights(entropy, u, variant)


def _resized(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Means of x [B, H, W, C] over a grid of `size` cells, [B, *size, C]."""
  if x.shape[1:3] == tuple(size):
    return x
  rows, columns = (jnp.asarray(shares(n, to), x.dtype) for n, to in zip(x.shape[1:3], size))
  return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)
