"""Deep CCA: two modalities' features are to be as correlated as linear maps can make them.

Andrew, Arora, Bilmes, Livescu: Deep Canonical Correlation Analysis, ICML 2013.
"""

import jax
import jax.numpy as jnp


def cca_loss(
  x: jax.Array,
  y: jax.Array,
  present: jax.Array | None = None,
  *,
  k: int,
  ridge: float = 1e-3,
  floor: float = 1e-9,
) -> jax.Array:
  r"""-\sum of the k largest sqrt eig(T'T + r I), T = S_xx^-1/2 S_xy S_yy^-1/2.

  The S are covariances over the rows present, divided by n - 1, with r added to the diagonal of
  S_xx and S_yy; eigenvalues below `floor` are left out of the roots.

  Args:
    x, y: features [B, D], of one width.
    present: bool [B], the rows that count; None = all.
    k: how many correlations count, 1..D; MultiBench takes all 48 of AV-MNIST.
    ridge, floor: r and the floor, 1e-3 and 1e-9 as MultiBench.

  Returns a scalar; with fewer than two rows the covariances are 0. Gradients are those of
  eigenvectors and are not finite where eigenvalues coincide exactly.

  Raises:
    ValueError: other shapes, or k outside 1..D.
  """
  if x.ndim != 2 or x.shape != y.shape:
    raise ValueError(
      f"cca_loss takes two [B, D] of one shape, got {list(x.shape)} and {list(y.shape)}"
    )
  if not 1 <= k <= x.shape[1]:
    raise ValueError(f"k must lie in 1..{x.shape[1]} (the width), got {k}")
  weight = (jnp.ones(x.shape[0]) if present is None else present).astype(x.dtype)[:, None]
  count, eye = weight.sum(), jnp.eye(x.shape[1], dtype=x.dtype)
  x, y = _centred(x, weight), _centred(y, weight)
  cov = lambda a, b: a.T @ b / jnp.maximum(count - 1, 1.0)
  t = (
    _inverse_root(cov(x, x) + ridge * eye, floor)
    @ cov(x, y)
    @ _inverse_root(cov(y, y) + ridge * eye, floor)
  )
  # ascending: the last k are the largest
  values = jnp.linalg.eigvalsh(t.T @ t + ridge * eye)[-k:]
  return -jnp.sqrt(jnp.maximum(values, floor)).sum()


def _centred(x, weight):
  x = jnp.where(weight > 0, x, 0.0)
  return weight * (x - x.sum(0, keepdims=True) / jnp.maximum(weight.sum(), 1.0))


def _inverse_root(matrix, floor):
  values, vectors = jnp.linalg.eigh(matrix)
  kept = values > floor
  roots = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1.0)), 0.0)
  return (vectors * roots[None]) @ vectors.T
