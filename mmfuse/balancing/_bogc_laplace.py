"""BOGC on features: the distribution of each objective's gradient comes from its last layer.

Guo, Wang, Guo, Li, Sun, Zheng, Qiang: "Multi-Modal Learning with Bayesian-Oriented Gradient
Calibration", arXiv 2505.23071, 2025, by way of its ancestor BayesAgg-MTL (ICML 2024). The
evidence-to-weight formula is reconstructed. An aggregator for `aggregate_on="features"`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import draws, tree
from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._bogc import MODES, evidence, evidence_weights
from mmfuse.balancing._laplace import last_layer_draws, moments_of_draws

_POSTERIORS = ("auto", "full", "kronecker", "diagonal")
_PRIORS = ("current", "zero")
FULL_UP_TO = 128  # entries of a last layer


class BogcLaplaceState(NamedTuple):
  """What the calibration decided last."""

  weights: jax.Array  # [K], mean weight over rows and dimensions
  log_evidence: jax.Array  # mean log e: >> 0 is precision weighting, << 0 the plain mean


def last_layers(heads: Mapping[str, Any], modalities: list[str]) -> dict[str, jax.Array]:
  """{objective: [C, d + 1]} of linear heads; the fused one on the features in sorted order.

  Raises ValueError for a fused head that is not linear in the features.
  """

  def layer(kernel, bias):
    return jnp.concatenate([kernel.T, bias[:, None]], axis=1)

  out = {m: layer(heads[m]["kernel"], heads[m]["bias"]) for m in modalities}
  fused = heads[tree.FUSED]
  if set(fused) == {"kernel", "bias"}:
    out[tree.FUSED] = layer(fused["kernel"], fused["bias"])
  elif set(fused) == {f"branch_{m}" for m in modalities}:
    branches = [fused[f"branch_{m}"] for m in modalities]
    kernel = jnp.concatenate([b["kernel"] for b in branches])
    out[tree.FUSED] = layer(kernel, jnp.stack([b["bias"] for b in branches]).sum(0))
  else:
    raise ValueError(
      "the Laplace posterior is that of a linear last layer; this fused head has the "
      f"parameters {', '.join(sorted(fused))}; use the fusion concat or sum"
    )
  return out


def aggregate_by_bogc_laplace(
  num_objectives: int,
  *,
  prior_variance: float = 5e-3,
  samples: int = 64,
  power: float = 0.1,
  prior: str = "current",
  posterior: str = "auto",
  mode: str = "calibrated",
  evidence_scale: float = 1.0,
  rescale: str = "none",
) -> Aggregator:
  r"""g_m = (1/B) \sum_k w_k mu_k per row and dimension, k the fused objective and that of m.

  mu_k, v_k [B, D_m]: Monte-Carlo moments of d CE_k / d h_m over the Laplace posterior of the last
  layer of objective k; w = `evidence_weights(v)`. Takes feature gradients {m: [K, B, D_m]} and
  replaces them by {m: [B, D_m]}: `train.supervised(..., aggregate_on="features")` calls it so, and
  gives each last layer its own plain gradient. Classification with linear heads.

  Args:
    num_objectives: K = 1 + M: the fused objective first, then `sorted(modalities)`.
    prior_variance: gamma (ancestor: 5e-4 to 5e-3).
    samples: draws S. The ancestor takes 512; 64 cost an eighth and leave an error of about a sixth in
      a variance.
    power: q, below 1 it flattens the variances (ancestor, for classification: 5e-4 to 1e-1, whose
      upper end is the default). With 1 the precision is about 1 / residual^2, which starves the
      objective that fits worse.
    prior, posterior: see `last_layer_draws`; "auto" is "full" up to 128 entries of a last layer and
      "diagonal" above: factorisations cost several plain steps, and many times that where several
      runs share the cores (LAPACK's own threads).
    mode, evidence_scale: see `evidence_weights`.
    rescale: "none" = a convex combination; "sum" = times the number of objectives present.

  Raises:
    ValueError: an unknown option, a number that is not positive, a fused head that is not linear.
    TypeError: called without features, label, heads and key.
  """
  num_objectives = _groups.check_count(num_objectives)
  for name, value, choices in (
    ("prior", prior, _PRIORS),
    ("posterior", posterior, _POSTERIORS),
    ("mode", mode, MODES),
    ("rescale", rescale, _groups.RESCALE),
  ):
    _groups.check_choice(name, value, choices)
  for name, number in (
    ("prior_variance", prior_variance),
    ("samples", samples),
    ("power", power),
    ("evidence_scale", evidence_scale),
  ):
    if not number > 0:
      raise ValueError(f"{name} must be positive, got {number}")

  def init_fn(params):
    del params
    return BogcLaplaceState(_groups.uniform_weights(num_objectives), jnp.zeros((), jnp.float32))

  def moments(key, layer, features, label, weight):
    """(mean, variance) [B, d] of one objective's feature gradients."""
    chosen = posterior
    if posterior == "auto":
      chosen = "full" if layer.size <= FULL_UP_TO else "diagonal"
    normals = draws.flat(jax.random.normal, key, (samples, *layer.shape), dtype=layer.dtype)
    drawn = last_layer_draws(
      layer,
      features,
      label,
      normals,
      weight=weight,
      prior=prior,
      prior_variance=prior_variance,
      posterior=chosen,
    )
    return moments_of_draws(drawn, features, label, power=power)[:2]

  def update_fn(
    updates,
    state,
    params=None,
    *,
    features=None,
    label=None,
    weight=None,
    mask=None,
    heads=None,
    key=None,
    present=None,
    **extra_args,
  ):
    del state, params, extra_args
    if features is None or label is None or heads is None or key is None:
      raise TypeError(
        "BOGC on features needs the extra arguments features=, label=, heads=, key=; "
        "train.supervised(..., aggregate_on='features') gives them"
      )
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.ndim != 1:
      raise ValueError(
        "the posterior is that of a softmax layer: label must be int [B], got "
        f"{label.dtype}{list(label.shape)}"
      )
    _groups.check_stacked(updates, num_objectives)
    names = sorted(updates)
    here = _groups.everyone(present, num_objectives)
    rows = jnp.ones(label.shape, jnp.float32) if weight is None else weight
    layers = last_layers(heads, names)
    keys = jax.random.split(key, 1 + len(names))
    joined = jnp.concatenate([features[m] for m in names], axis=1)
    fused = moments(keys[0], layers[tree.FUSED], joined, label, rows)
    cuts = [sum(features[n].shape[1] for n in names[: i + 1]) for i in range(len(names) - 1)]
    blocks = list(zip(*(jnp.split(x, cuts, axis=1) for x in fused)))  # a (mean, variance) each
    out, weights, logs = {}, [], []
    for i, m in enumerate(names):
      mine = rows if mask is None else jnp.where(mask[m], rows, 0.0)
      opinions = [blocks[i]]
      if 1 + i < num_objectives:
        opinions.append(moments(keys[1 + i], layers[m], features[m], label, mine))
      index = jnp.array([0, 1 + i][: len(opinions)])
      mean, var = (jnp.stack(x) for x in zip(*opinions))  # [2, B, d]
      trust = evidence_weights(var, mode=mode, evidence_scale=evidence_scale, present=here[index])
      times = here[index].sum() if rescale == "sum" else 1.0
      # As each mean loss weighs its rows; absent rows pass nothing to their encoder.
      shares = jnp.stack([_shares(w, mine) for w in (rows, mine)[: len(opinions)]])
      out[m] = (times * (shares[:, :, None] * trust * mean).sum(0)).astype(updates[m].dtype)
      weights.append(jnp.zeros(num_objectives, jnp.float32).at[index].set(_mean(trust, mine)))
      logs.append(_mean(jnp.log(evidence(var, evidence_scale)), mine).mean())
    # The fused objective has an opinion on every encoder, an own one on its encoder alone.
    times = jnp.ones(num_objectives, jnp.float32).at[0].set(len(names))
    return out, BogcLaplaceState(jnp.stack(weights).sum(0) / times, jnp.stack(logs).mean())

  return Aggregator(init_fn, update_fn)


def _shares(weight: jax.Array, present: jax.Array) -> jax.Array:
  """[B], the part of each row in a mean with these weights; 0 where the modality is absent."""
  return jnp.where(present > 0, weight, 0.0) / jnp.maximum(weight.sum(), 1e-12)


def _mean(values: jax.Array, weight: jax.Array) -> jax.Array:
  """Over present rows and dimensions: [K, B, d] -> [K]."""
  seen = (weight > 0).astype(jnp.float32)[None, :, None]
  return (values * seen).sum((1, 2)) / jnp.maximum(seen.sum() * values.shape[2], 1.0)
