"""Maximum mean discrepancy (MMD): how far apart two samples of features are, by five Gaussian kernels.

Kernels and bandwidth are those of Wei, Luo and Luo's released code (MMANet, CVPR 2023). The joint form is
that of Long, Zhu, Wang and Jordan, Deep Transfer Learning with Joint Adaptation Networks, ICML 2017.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

VARIANTS = ("guarded", "released")
FACTOR, KERNELS = 2.0, 5  # the released code's kernel_mul and kernel_num
_EPS = 1e-6  # beside the length of a row of similarities, the released code's

_matmul = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def mmd_loss(
  source: jax.Array,
  target: jax.Array,
  weight: jax.Array | None = None,
  *,
  variant: str = "guarded",
  factor: float = FACTOR,
  kernels: int = KERNELS,
) -> jax.Array:
  r"""MMD^2 = mean_{ij} [k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)], diagonals included; scalar.

  k = \sum_{n<5} exp(-|u - v|^2 / (2^n b)), b the mean of |u - v|^2 over the pairs of different rows of
  both samples together, divided by 2^2 and without a gradient. Not negative but for rounding, 0 for
  two samples of the same rows, the same for c x and c y. Gradients reach both samples.

  Args:
    source, target: x and y [B, ...], flattened.
    weight: [B], of row i in both; a row of weight 0 is never read. None = 1 each.
    variant: "guarded" (default): 0 where all rows coincide; "released": 0 / 0 = NaN there.
    factor, kernels: 2 and 5 above (the authors').

  Raises:
    ValueError: an unknown variant.
  """
  return jmmd_loss([source], [target], weight, variant=variant, factor=factor, kernels=kernels)


def jmmd_loss(
  source: Sequence[jax.Array],
  target: Sequence[jax.Array],
  weight: jax.Array | None = None,
  *,
  variant: str = "guarded",
  factor: float = FACTOR,
  kernels: int = KERNELS,
) -> jax.Array:
  r"""`mmd_loss` of several layers at once, by the kernel \prod_l k_l(x^l_i, x^l_j); scalar.

  Each layer has its own bandwidth. Layers that depend on each other otherwise in the one sample than in
  the other are told apart, be each of them distributed alike. Logits go in as they are, not as softmax.

  Args:
    source, target: [B, ...] of each layer, in the same order.
    weight, variant, factor, kernels: as in `mmd_loss`.

  Raises:
    ValueError: an unknown variant.
  """
  _check_variant(variant)
  u = _counted(source[0], weight)
  gram = jnp.ones((2 * u.shape[0],) * 2, jnp.float32)
  for x, y in zip(source, target, strict=True):
    gram = gram * _gram(x, y, u, variant, factor, kernels)
  return _estimate(gram, u)


def pkt_mmd_loss(
  source: jax.Array,
  target: jax.Array,
  weight: jax.Array | None = None,
  *,
  variant: str = "guarded",
) -> jax.Array:
  r"""`mmd_loss` of the rows of S(x) and of S(y), S_ij = s_ij / \sum_j s_ij; scalar.

  s_ij = (1 + cos(x_i, x_j)) / 2: how alike the rows of a batch are, as probabilities (probabilistic
  knowledge transfer). x and y may be of different widths.

  Args:
    source, target: x [B, ...] and y [B, ...], flattened.
    weight, variant: as in `mmd_loss`.

  Raises:
    ValueError: an unknown variant.
  """
  _check_variant(variant)
  u = _counted(source, weight)
  return mmd_loss(_similarities(source, u), _similarities(target, u), u, variant=variant)


def _check_variant(variant: str) -> None:
  if variant not in VARIANTS:
    raise ValueError(f"unknown variant {variant!r}; expected one of: {', '.join(VARIANTS)}")


def _counted(x: jax.Array, weight: jax.Array | None) -> jax.Array:
  return jnp.ones(x.shape[0]) if weight is None else weight.astype(jnp.float32)


def _rows(x: jax.Array, u: jax.Array) -> jax.Array:
  """[B, D] float32, rows that do not count as zeros."""
  flat = x.reshape(x.shape[0], -1).astype(jnp.float32)
  return jnp.where(u[:, None] > 0, flat, 0.0)


def _gram(x, y, u: jax.Array, variant: str, factor: float, kernels: int) -> jax.Array:
  """k of all pairs of rows of [x; y], [2B, 2B]."""
  z, w = jnp.concatenate([_rows(x, u), _rows(y, u)]), jnp.concatenate([u, u])
  # Differences first: |u|^2 + |v|^2 - 2 u.v would lose the digits of what is nearly equal.
  distance = jnp.square(z[:, None] - z[None]).sum(-1)
  pairs = w[:, None] * w[None] * (1.0 - jnp.eye(w.shape[0]))
  total = pairs.sum()
  if variant == "guarded":
    total = jnp.where(total > 0, total, 1.0)
  bandwidth = jax.lax.stop_gradient((pairs * distance).sum() / total) / factor ** (kernels // 2)
  if variant == "guarded":
    bandwidth = jnp.where(bandwidth > 0, bandwidth, 1.0)
  return sum(
    (jnp.exp(-distance / (bandwidth * factor**n)) for n in range(kernels)),
    jnp.zeros_like(distance),
  )


def _estimate(gram: jax.Array, u: jax.Array) -> jax.Array:
  """s^T K s, s = [u; -u] / sum u: the means over pairs within the samples less those between them."""
  total = u.sum()
  share = u / jnp.where(total > 0, total, 1.0)
  s = jnp.concatenate([share, -share])
  return (s[:, None] * gram * s[None]).sum()


def _similarities(x: jax.Array, u: jax.Array) -> jax.Array:
  """S [B, B]; rows and columns that do not count are 0."""
  rows, here = _rows(x, u), u > 0
  square = jnp.square(rows).sum(-1, keepdims=True)
  # A row of zeros has no direction, and no gradient through its length.
  length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
  unit = rows / (length + _EPS)
  alike = jnp.where(here[:, None] & here[None], (_matmul(unit, unit.T) + 1.0) / 2.0, 0.0)
  total = alike.sum(-1, keepdims=True)
  return alike / jnp.where(total > 0, total, 1.0)
