"""Gradient distributions from a Laplace posterior of the last layer: BOGC's route 1, first half.

Follows Achituve, Diamant, Netzer, Chechik, Fetaya: "Bayesian Uncertainty for Gradient Aggregation
in Multi-Task Learning" (BayesAgg-MTL), ICML 2024, the ancestor of BOGC. Pure functions, no state.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve


def with_bias(features: jax.Array) -> jax.Array:
  """[B, d] -> [B, d + 1], a column of ones appended."""
  return jnp.concatenate([features, jnp.ones((features.shape[0], 1), features.dtype)], axis=1)


def laplace_posterior(
  weights: jax.Array,
  features: jax.Array,
  label: jax.Array,
  *,
  prior_variance: float = 5e-3,
  prior_mean: jax.Array | None = None,
  prior_precision: jax.Array | None = None,
  weight: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  r"""Gaussian posterior of a softmax layer around `weights`: (mean [C (d+1)], covariance).

  Lambda = \sum_b J_b^T (diag p_b - p_b p_b^T) J_b + P with J_b = I_C (x) [h_b, 1]; the mean is one
  Newton step, vec(W) - Lambda^{-1} (d CE / d vec(W) + P (vec(W) - m)), for the cross-entropy summed
  over rows.

  Args:
    weights: W [C, d + 1], rows [weights, bias]; vec is row-major.
    features: h [B, d].
    label: int [B].
    prior_variance: gamma > 0, P = I / gamma (ancestor: 5e-4 to 5e-3).
    prior_mean: m [C (d+1)], default 0.
    prior_precision: P, in place of I / gamma.
    weight: [B] of the rows' cross-entropies, default 1; rows of weight 0 do not count.

  The cost is O((C (d + 1))^3).
  """
  classes, width = weights.shape
  inputs, flat = with_bias(features), weights.reshape(-1)
  probabilities = jax.nn.softmax(inputs @ weights.T)
  precision = jnp.eye(flat.size, dtype=weights.dtype) / prior_variance
  if prior_precision is not None:
    precision = prior_precision
  outer = probabilities[:, :, None] * probabilities[:, None, :]
  spread = jax.vmap(jnp.diag)(probabilities) - outer  # [B, C, C]
  residual = probabilities - jax.nn.one_hot(label, classes, dtype=weights.dtype)
  if weight is not None:
    spread, residual = spread * weight[:, None, None], residual * weight[:, None]
  curvature = jnp.einsum("bij,bk,bl->ikjl", spread, inputs, inputs).reshape(flat.size, flat.size)
  # Lambda^{-1} (H W - dCE + P m): the Newton step without subtracting P W from itself.
  target = curvature @ flat - (residual.T @ inputs).reshape(classes * width)
  if prior_mean is not None:
    target = target + precision @ prior_mean
  factor = cho_factor(curvature + precision, lower=True)
  covariance = cho_solve(factor, jnp.eye(flat.size, dtype=weights.dtype))
  return cho_solve(factor, target), 0.5 * (covariance + covariance.T)


def gradient_moments(
  mean: jax.Array,
  covariance: jax.Array,
  features: jax.Array,
  label: jax.Array,
  normals: jax.Array,
  *,
  power: float = 1.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  r"""Monte-Carlo mean and variance of d CE_b / d h_b over W ~ N(mean, covariance).

  W_s = mean + chol(covariance) z_s; g_sb = W_s[:, :d]^T (softmax(z_sb) - onehot(y_b));
  v_b = max(E g^2 - (E g)^2, 1e-8)^power.

  The ancestor's form, whole, and compared with its recorded outputs; BOGC's rule takes the moments of
  `last_layer_draws`.

  Args:
    mean: [C (d+1)]; covariance: its square.
    features: h [B, d]; label: int [B].
    normals: z [S, C (d+1)], standard normals; S = 512 in the ancestor's code.
    power: q; below 1 it flattens the variances (ancestor: 5e-4 to 1e-1 for classification).

  Returns:
    (mean [B, d], variance [B, d], mean over draws and rows of the cross-entropy).
  """
  width = features.shape[1] + 1
  drawn = mean[None] + normals @ jnp.linalg.cholesky(covariance).T
  return moments_of_draws(drawn.reshape(normals.shape[0], -1, width), features, label, power=power)


def moments_of_draws(
  layers: jax.Array, features: jax.Array, label: jax.Array, *, power: float = 1.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The moments of `gradient_moments` from drawn last layers [S, C, d + 1]."""
  logits = jnp.einsum("bd,scd->sbc", with_bias(features), layers)
  target = jax.nn.one_hot(label, layers.shape[1], dtype=features.dtype)
  gradients = jnp.einsum("sbc,scd->sbd", jax.nn.softmax(logits) - target[None], layers[:, :, :-1])
  first = gradients.mean(0)
  # The variance of the draws, which equals E g^2 - (E g)^2 without its cancellation.
  second = jnp.maximum(jnp.mean((gradients - first[None]) ** 2, axis=0), 1e-8) ** power
  loss = -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * target[None], axis=-1))
  return first, second, loss


def last_layer_draws(
  weights: jax.Array,
  features: jax.Array,
  label: jax.Array,
  normals: jax.Array,
  *,
  weight: jax.Array,
  prior_variance: float,
  prior: str = "current",
  posterior: str = "full",
) -> jax.Array:
  r"""Last layers [S, C, d + 1] drawn from the Laplace posterior around W [C, d + 1].

  Mean W - Lambda^{-1} (d CE / d W + P (W - m)), covariance Lambda^{-1}, Lambda = H + P, P = I / gamma,
  H the curvature of the weighted sum of cross-entropies.

  Args:
    weights, features [B, d], label [B]: as in `laplace_posterior`.
    normals: z [S, C, d + 1].
    weight: [B], 0 for rows that do not count.
    prior_variance: gamma > 0.
    prior: "current": m = W, the posterior stays around the learned point; "zero": m = 0, which with
      a small gamma forgets it.
    posterior: "full": H as it is, O((C (d + 1))^3); "kronecker": H ~ \sum_b (diag p - p p^T) (x)
      \sum_b h h^T / \sum_b w_b, O(C^3 + d^3); "diagonal": the diagonal of H.
  """
  classes, width = weights.shape
  centre = weights if prior == "current" else jnp.zeros_like(weights)
  if posterior == "full":
    mean, covariance = laplace_posterior(
      weights,
      features,
      label,
      prior_variance=prior_variance,
      prior_mean=centre.reshape(-1),
      weight=weight,
    )
    flat = normals.reshape(normals.shape[0], -1) @ jnp.linalg.cholesky(covariance).T
    return (mean[None] + flat).reshape(-1, classes, width)
  inputs = with_bias(features)
  chance = jax.nn.softmax(inputs @ weights.T)
  residual = (chance - jax.nn.one_hot(label, classes, dtype=weights.dtype)) * weight[:, None]
  slope = residual.T @ inputs + (weights - centre) / prior_variance
  if posterior == "diagonal":
    spread = (chance * (1.0 - chance) * weight[:, None]).T @ inputs**2
    precision = spread + 1.0 / prior_variance
    return (weights - slope / precision)[None] + normals / jnp.sqrt(precision)[None]
  held = chance * weight[:, None]
  outer, left = jnp.linalg.eigh(jnp.diag(held.sum(0)) - held.T @ chance)
  inner, right = jnp.linalg.eigh((inputs * weight[:, None]).T @ inputs)
  rows = jnp.maximum(weight.sum(), 1.0)
  # Both factors are positive; what eigh returns below zero is rounding.
  product = jnp.maximum(outer, 0.0)[:, None] * jnp.maximum(inner, 0.0)[None] / rows
  precision = product + 1.0 / prior_variance
  step = left @ ((left.T @ slope @ right) / precision) @ right.T
  spread = jnp.einsum("ci,sij,dj->scd", left, normals / jnp.sqrt(precision)[None], right)
  return (weights - step)[None] + spread


def precision_weighted(mean: jax.Array, var: jax.Array) -> jax.Array:
  r"""\sum_k mu_k / v_k / \sum_k 1 / v_k, divided by the batch size: [B, K, d] twice -> [B, d].

  The ancestor's second half, kept to be compared with its recorded outputs: BOGC's own rules weigh by
  `evidence_weights`, which tend to it as evidence grows.
  """
  precision = 1.0 / var
  return jnp.sum(precision * mean, axis=1) / jnp.sum(precision, axis=1) / mean.shape[0]
