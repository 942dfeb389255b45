"""VICReg: two embeddings of a row are alike, each varies enough, and its coordinates say different things.

Bardes, Ponce, LeCun: VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning,
ICLR 2022.
"""

import jax
import jax.numpy as jnp

from mmfuse.objectives._classification import weighted_mean


def vicreg_loss(
  x: jax.Array,
  y: jax.Array,
  weight: jax.Array | None = None,
  *,
  sim: float = 25.0,
  std: float = 25.0,
  cov: float = 1.0,
  gamma: float = 1.0,
  eps: float = 1e-4,
) -> jax.Array:
  r"""sim mean (x - y)^2 + std (v(x) + v(y)) / 2 + cov (c(x) + c(y)), over the rows that count.

  v(x) = mean_d relu(gamma - sqrt(var_d(x) + eps)), c(x) = \sum_{i != j} C(x)_ij^2 / D; C is the covariance
  of the coordinates, var its diagonal, both unbiased. Moments are weighted, n / (n - 1) in front, with n
  the number of rows that count. With fewer than two a covariance is undefined and the loss is 0 (ours;
  the authors' divides by zero). Sums run over the whole array, hence over a device mesh under `jit`.

  Args:
    x, y: embeddings [B, D], of one shape; symmetric.
    weight: float or bool [B], 0 = the row does not count and is not read; default None, all count alike.
    sim, std, cov: of the invariance, the variance and the covariance; 25, 25, 1 as the authors'.
    gamma, eps: the standard deviation wanted, 1, and what is added to a variance, 1e-4, theirs too.

  Raises:
    ValueError: other shapes.
  """
  if x.ndim != 2 or x.shape != y.shape:
    raise ValueError(
      f"vicreg_loss takes two [B, D] of one shape, got {list(x.shape)} and {list(y.shape)}"
    )
  weight = jnp.ones(x.shape[0]) if weight is None else weight.astype(jnp.float32)
  x, y = (_counted(a, weight) for a in (x, y))
  invariance = weighted_mean(jnp.square(x - y).mean(-1), weight)
  own = [_spread(a, weight, std / 2, cov, gamma, eps) for a in (x, y)]
  return jnp.where(jnp.sum(weight > 0) > 1, sim * invariance, 0.0) + own[0] + own[1]


def variance_covariance_loss(
  x: jax.Array,
  weight: jax.Array | None = None,
  *,
  std: float = 25.0,
  cov: float = 1.0,
  gamma: float = 1.0,
  eps: float = 1e-4,
) -> jax.Array:
  r"""std v(x) + cov c(x): what keeps one embedding from collapsing, as in `vicreg_loss`.

  Args:
    x: embeddings [B, D].
    weight: float or bool [B], 0 = the row does not count and is not read; default None, all count alike.
    std, cov, gamma, eps: as in `vicreg_loss`.

  Raises:
    ValueError: another rank.
  """
  if x.ndim != 2:
    raise ValueError(f"variance_covariance_loss takes [B, D], got {list(x.shape)}")
  weight = jnp.ones(x.shape[0]) if weight is None else weight.astype(jnp.float32)
  return _spread(_counted(x, weight), weight, std, cov, gamma, eps)


def _spread(x, weight, std: float, cov: float, gamma: float, eps: float) -> jax.Array:
  """`variance_covariance_loss` of what `_counted` made."""
  count = jnp.sum(weight > 0)
  covariance = _covariance(x, weight, count)
  value = std * _hinge(covariance, gamma, eps) + cov * _off_diagonal(covariance)
  return jnp.where(count > 1, value, 0.0)


def _counted(x: jax.Array, weight: jax.Array) -> jax.Array:
  """x in float32, 0 where nothing counts: there it may be NaN."""
  return jnp.where(weight[:, None] > 0, x.astype(jnp.float32), 0.0)


def _covariance(x: jax.Array, weight: jax.Array, count: jax.Array) -> jax.Array:
  """C [D, D]; finite where nothing counts."""
  total = weight.sum()
  share = weight / jnp.where(total > 0, total, 1.0)
  centred = x - (share @ x)[None]
  unbiased = count / jnp.maximum(count - 1, 1)
  return unbiased * jnp.matmul(centred.T, share[:, None] * centred, precision="highest")


def _hinge(covariance: jax.Array, gamma: float, eps: float) -> jax.Array:
  return jax.nn.relu(gamma - jnp.sqrt(jnp.diagonal(covariance) + eps)).mean()


def _off_diagonal(covariance: jax.Array) -> jax.Array:
  diagonal = jnp.diag(jnp.diagonal(covariance))
  return jnp.square(covariance - diagonal).sum() / covariance.shape[0]
