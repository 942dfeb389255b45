"""BOGC: per parameter, each objective is trusted by the precision of its gradient. An aggregator.

Guo, Wang, Guo, Li, Sun, Zheng, Qiang: "Multi-Modal Learning with Bayesian-Oriented Gradient
Calibration", arXiv 2505.23071, 2025. The evidence-to-weight formula is reconstructed: the paper's
body could not be read.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import tree
from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator

MODES = ("calibrated", "belief", "single")
_VARIANCES = ("ema", "parts")
_FLOOR = 1e-30  # keeps 1 / v finite in float32


class BogcState(NamedTuple):
  """What the calibration decided last, and the moments it keeps."""

  weights: jax.Array  # [K], mean over the contested parameters of each objective's weight
  log_evidence: jax.Array  # mean log e there: >> 0 is precision weighting, << 0 the plain mean
  mean: Any  # variance="ema": moving average of the gradients [K, *param]; else ()
  variance: Any  # variance="ema": moving average of the squared deviations [K, *param]; else ()
  squared: jax.Array  # [K], sum of the squared weights of those averages, which makes them unbiased
  seen: jax.Array  # int32 [K], batches in which the objective was present


def evidence(var: jax.Array, evidence_scale: float = 1.0) -> jax.Array:
  """e = evidence_scale / v, any shape; v is kept above 1e-30."""
  return evidence_scale / jnp.maximum(var, _FLOOR)


def fuse_opinions(e: jax.Array, present: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
  r"""Reduced Dempster fusion of K opinions: b_k = e_k / (K + \sum e), u = K / (K + \sum e).

  Returns (belief b [K, ...], uncertainty u [...]), with \sum b + u = 1, from evidence [K, ...].
  Opinion k supports k alone (Dirichlet alpha = e + 1). The closed form of the sequential fusion,
  independent of its order. `evidence_weights` needs neither b nor u: they are what its weights
  w = b + u / K are derived from, and what recorded outputs are compared with.
  """
  here = _column(present, e)
  e = jnp.where(here, e, 0.0)
  count = here.sum(0, keepdims=True)
  total = jnp.maximum(count + e.sum(0, keepdims=True), _FLOOR)
  return e / total, (count / total)[0]


def evidence_weights(
  var: jax.Array,
  *,
  mode: str = "calibrated",
  evidence_scale: float = 1.0,
  present: jax.Array | None = None,
) -> jax.Array:
  r"""Weights [K, ...] that sum to 1 over K in every dimension, from gradient variances [K, ...].

  Args:
    var: v > 0.
    mode: "calibrated": w = b + u / K = (e_k + 1) / (K + \sum e), between the plain mean (e << 1)
      and precision weighting (e >> 1); "belief": w = b / \sum b, precision weighting; "single": the
      opinions of one hypothesis each, w = (e_k + 1 / K) / (1 + \sum e).
    evidence_scale: e = evidence_scale / v; its size relative to 1 is what matters.
    present: bool [K]; absent objectives get 0 and K counts the present ones.
  """
  _groups.check_choice("mode", mode, MODES)
  e = evidence(var, evidence_scale)
  here = _column(present, e)
  count = jnp.maximum(here.sum(0, keepdims=True), 1).astype(e.dtype)
  ones = jnp.ones_like(count)
  prior = {"calibrated": ones, "belief": 0.0 * ones, "single": 1.0 / count}[mode]
  raw = jnp.where(here, e + prior, 0.0)
  return raw / jnp.maximum(raw.sum(0, keepdims=True), _FLOOR)


def _column(present: jax.Array | None, like: jax.Array) -> jax.Array:
  """bool of the shape of `like`, from [K]."""
  here = _groups.everyone(present, like.shape[0])
  return jnp.broadcast_to(here.reshape((-1,) + (1,) * (like.ndim - 1)), like.shape)


def aggregate_by_bogc(
  num_objectives: int,
  *,
  variance: str = "ema",
  decay: float = 0.9,
  mode: str = "calibrated",
  evidence_scale: float = 1.0,
  rescale: str = "none",
) -> Aggregator:
  r"""d = \sum_k w_k g_k per parameter, w = `evidence_weights` of the gradients' variances.

  Gradients [K, *param] -> [*param]. Only objectives that can move a leaf (its owner's `objectives`) and
  are present take part; heads and leaves that one objective reaches keep their plain gradient.

  Args:
    num_objectives: K >= 1.
    variance: "ema": over steps, from exponential moving averages kept in the state (twice the
      stacked gradients of memory); "parts": over the S >= 2 parts of the batch, unbiased, from the
      extra argument `parts` (tree [S, K, *param]).
    decay: of the moving averages, in [0, 1). The averages are started at the first gradient and the
      variance made unbiased, so early steps are not understated; the first step has none and weighs
      all alike.
    mode, evidence_scale: see `evidence_weights`.
    rescale: "none" = a convex combination, about 1/K of the sum's scale; "sum" = times the number
      of objectives taking part in the leaf.

  Raises:
    ValueError: an unknown option, a decay outside [0, 1), gradients of another K, only 1 part.
    TypeError: variance="parts" without `parts`.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("variance", variance, _VARIANCES)
  _groups.check_choice("mode", mode, MODES)
  _groups.check_choice("rescale", rescale, _groups.RESCALE)
  if not 0 <= decay < 1:
    raise ValueError(f"decay must lie in [0, 1), got {decay}")
  if not evidence_scale > 0:
    raise ValueError(f"evidence_scale must be positive, got {evidence_scale}")

  def init_fn(params):
    zeros = (
      ()
      if variance == "parts"
      else jax.tree.map(lambda p: jnp.zeros((num_objectives, *p.shape), jnp.float32), params)
    )
    blank = jnp.zeros(num_objectives, jnp.float32)
    return BogcState(
      _groups.uniform_weights(num_objectives),
      jnp.zeros((), jnp.float32),
      zeros,
      zeros,
      blank,
      jnp.zeros(num_objectives, jnp.int32),
    )

  def update_fn(
    updates, state, params=None, *, parts=None, owners=None, present=None, **extra_args
  ):
    del params, extra_args
    _groups.check_stacked(updates, num_objectives)
    here = _groups.everyone(present, num_objectives)
    if variance == "parts":
      var = _parts_variance(parts)
    else:
      state = _moving(state, updates, here, decay)
      var = _unbiased(state)
    direction, weights, logs = _calibrate(updates, var, owners, here, mode, evidence_scale, rescale)
    return direction, state._replace(weights=weights, log_evidence=logs)

  return Aggregator(init_fn, update_fn)


def _parts_variance(parts: Any) -> Any:
  if parts is None:
    raise TypeError(
      "BOGC with variance='parts' needs the extra argument parts= (a tree [S, K, *param])"
    )
  if any(p.shape[0] < 2 for p in jax.tree.leaves(parts)):
    raise ValueError("a variance over parts needs at least 2 parts of the batch, got 1")
  return jax.tree.map(lambda p: jnp.var(p.astype(jnp.float32), axis=0, ddof=1), parts)


def _moving(state: BogcState, updates: Any, present: jax.Array, decay: float) -> BogcState:
  """Moving mean and variance, deviations from the mean before it moves; the absent keep theirs."""
  rate = jnp.where(state.seen == 0, 1.0, 1.0 - decay) * present

  def shaped(leaf):
    return rate.reshape((-1,) + (1,) * (leaf.ndim - 1))

  delta = jax.tree.map(lambda g, mean: g.astype(jnp.float32) - mean, updates, state.mean)
  mean = jax.tree.map(lambda m, d: m + shaped(m) * d, state.mean, delta)
  var = jax.tree.map(lambda v, d: (1.0 - shaped(v)) * (v + shaped(v) * d**2), state.variance, delta)
  squared = (1.0 - rate) ** 2 * state.squared + rate**2
  return state._replace(
    mean=mean, variance=var, squared=squared, seen=state.seen + present.astype(jnp.int32)
  )


def _unbiased(state: BogcState) -> Any:
  left = 1.0 - state.squared
  factor = jnp.where(left > 0, 1.0 / jnp.where(left > 0, left, 1.0), 0.0)
  return jax.tree.map(lambda v: v * factor.reshape((-1,) + (1,) * (v.ndim - 1)), state.variance)


def _calibrate(updates, var, owners, present, mode, evidence_scale, rescale):
  """(direction, mean weights [K], mean log evidence) over leaves that several objectives reach."""
  num = present.shape[0]
  leaves, treedef = jax.tree.flatten(updates)
  tags = _groups.flat_labels(owners, len(leaves))
  plain = present.astype(jnp.float32)
  out, total, size = [], jnp.zeros(num, jnp.float32), jnp.zeros(num, jnp.float32)
  logs, count = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
  for leaf, v, tag in zip(leaves, jax.tree.leaves(var), tags):
    rows = _groups.reach(tag, num)
    if len(rows) < 2 or (tag is not None and tag.part == "head"):
      out.append(tree.combine(plain, leaf, tree.Owner(None, "shared", rows)))
      continue
    index = jnp.array(rows)
    here = present[index]
    v = jnp.stack([v[k] for k in rows])
    weights = evidence_weights(v, mode=mode, evidence_scale=evidence_scale, present=here)
    times = here.sum() if rescale == "sum" else 1.0
    out.append(sum(times * w * leaf[k] for w, k in zip(weights, rows)).astype(leaf.dtype))
    entries = leaf.size // num
    total = total.at[index].add(weights.reshape(len(rows), -1).sum(1))
    size = size.at[index].add(here * float(entries))
    logs = logs + jnp.sum(jnp.where(_column(here, v), jnp.log(evidence(v, evidence_scale)), 0.0))
    count = count + here.sum() * float(entries)
  weights = jnp.where(size > 0, total / jnp.maximum(size, 1.0), plain)
  return jax.tree.unflatten(treedef, out), weights, logs / jnp.maximum(count, 1.0)
