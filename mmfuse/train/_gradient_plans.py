"""Gradient plans: the cheapest way to the gradients a rule needs, all exactly equal.

sum      one backward pass of the summed losses;
weights  one backward pass, the rule's weights being the cotangent of the losses;
stacked  heads pulled back once per objective; encoders once per objective that is not a modality's
         own, and once more for all own objectives together, whose cotangents do not overlap: two
         passes through the encoders whatever the number of modalities (docs/design.md, section 4);
general  one full backward pass per objective.

And, another algorithm: features, where the rule combines the gradients with respect to the features
and one backward pass through the encoders follows.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.train._forward import Forward, Losses, Passed
from mmfuse.train._separable import split_params

PLANS = ("sum", "weights", "stacked", "general")


class Pulled(NamedTuple):
  """What every plan returns: one gradient, or the rows that a rule makes one of."""

  losses: jax.Array  # [K]; with `rows` [S * K], part by part
  names: tuple[str, ...]  # K
  passed: Passed  # outputs, statistics, memory
  gradient: Any = None  # [*param], the probe's included; None where there are rows
  rows: Any = None  # [S * K, *param], a gradient a loss
  probe: Any = None  # the probe's gradient, where there are rows
  carried: Any = None  # the rule's state after it; None where the plan asks no rule


def sum_gradient(forward: Forward, params: dict) -> Pulled:
  """One backward pass of the sum of the losses and the probe."""

  def total(params):
    (losses, probe), passed = forward.run(params)
    return sum(losses.values) + probe, (losses, losses.stacked(), passed)

  gradient, (losses, stacked, passed) = jax.grad(total, has_aux=True)(params)
  return Pulled(stacked, losses.names, passed, gradient)


def weighted_gradient(
  forward: Forward, params: dict, weigh: Callable[[jax.Array, Passed], tuple[jax.Array, Any]]
) -> Pulled:
  """sum_k w_k grad_k and the probe's gradient, w = `weigh(losses [K], passed)` -> (w [K], carried)."""
  (losses, probe), pull, passed = jax.vjp(forward.run, params, has_aux=True)
  stacked = losses.stacked()
  weights, carried = weigh(stacked, passed)
  # A cotangent must have the dtype of its loss; the rule may have computed in another.
  cotangents = losses.like(weights[k].astype(l.dtype) for k, l in enumerate(losses.values))
  gradient = pull((cotangents, jnp.ones_like(probe)))[0]
  return Pulled(stacked, losses.names, passed, gradient, carried=carried)


def _one_hot(losses: Losses, hot: int | None) -> Losses:
  """The cotangent that picks a loss; None picks none."""
  return losses.like(
    jnp.ones_like(l) if k == hot else jnp.zeros_like(l) for k, l in enumerate(losses.values)
  )


def _stack(rows: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _order(updates: dict, params: dict) -> dict:
  return {k: updates[k] for k in params}


def general_gradients(forward: Forward, params: dict) -> Pulled:
  """One pull-back per loss, whatever depends on what."""
  (losses, probe), pull, passed = jax.vjp(forward.run, params, has_aux=True)
  count = len(losses.values)
  rows = [pull((_one_hot(losses, k), jnp.zeros_like(probe)))[0] for k in range(count)]
  probe_gradient = pull((_one_hot(losses, None), jnp.ones_like(probe)))[0]
  return Pulled(losses.stacked(), losses.names, passed, rows=_stack(rows), probe=probe_gradient)


class _Halves(NamedTuple):
  """A pass of which encoders and heads can be pulled back apart."""

  encoders: dict[str, Any]  # parameters
  features: dict[str, Any]
  losses: Losses
  probe: jax.Array
  passed: Passed
  pull_encoders: Callable[..., Any]  # cotangent of the features -> (gradient of the encoders,)
  pull_heads: Callable[..., Any]  # of (losses, probe) -> (gradient of the rest, of the features)


def _halves(forward: Forward, params: dict) -> _Halves:
  encoders, rest = split_params(params, forward.modalities)
  features, pull_encoders, between = jax.vjp(
    lambda e: forward.encode({**rest, **e}), encoders, has_aux=True
  )
  (losses, probe), pull_heads, passed = jax.vjp(
    lambda r, f: forward.heads({**encoders, **r}, f, between), rest, features, has_aux=True
  )
  return _Halves(encoders, features, losses, probe, passed, pull_encoders, pull_heads)


def stacked_gradients(forward: Forward, params: dict) -> Pulled:
  """As `general_gradients`, for separable models: the own losses share one pass per part."""
  half = _halves(forward, params)
  losses, probe, num = half.losses, half.probe, len(half.losses.names)
  head_rows, encoder_rows = [], []
  for part in range(forward.parts):
    # Heads are cheap beside encoders and have gradients of their own for every loss.
    pulled = [
      half.pull_heads((_one_hot(losses, part * num + k), jnp.zeros_like(probe))) for k in range(num)
    ]
    head_rows += [rest for rest, _ in pulled]
    encoder_rows += _encoder_rows(half, [cotangent for _, cotangent in pulled])
  probe_rest = half.pull_heads((_one_hot(losses, None), jnp.ones_like(probe)))[0]
  # The probe stands on features without a gradient: it reaches no encoder.
  probe_gradient = {**probe_rest, **jax.tree.map(jnp.zeros_like, half.encoders)}
  rows = {**_stack(head_rows), **_stack(encoder_rows)}
  return Pulled(
    losses.stacked(),
    losses.names,
    half.passed,
    rows=_order(rows, params),
    probe=_order(probe_gradient, params),
  )


def _encoder_rows(half: _Halves, cotangents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The encoders' gradient of each loss, given those of the features: K rows from few passes."""
  names, features = half.losses.names, half.features
  own = {m: cotangents[k][m] for k, m in enumerate(names) if m in features}
  silent = {m: jax.tree.map(jnp.zeros_like, features[m]) for m in features if m not in own}
  # The own loss of m reads feature m alone, which comes from encoder m alone (`structure` has seen to
  # both). So the cotangents of all own losses stand side by side and go through the encoders in one
  # pass, and what arrives at encoder m is the row of m's loss.
  own_rows = half.pull_encoders({**own, **silent})[0]
  rows = []
  for name, cotangent in zip(names, cotangents):
    if name in features:
      nothing = jax.tree.map(jnp.zeros_like, {m: e for m, e in half.encoders.items() if m != name})
      rows.append({**nothing, name: own_rows[name]})
    else:  # the fused loss and its like reach all of them
      rows.append(half.pull_encoders(cotangent)[0])
  return rows


def feature_gradient(
  forward: Forward, params: dict, aggregate: Callable[..., tuple[Any, Any]]
) -> Pulled:
  """The rule on the features, then one pass through the encoders: another algorithm.

  `aggregate(losses [K], rows {m: [K, B, D]}, features, passed)` -> ({m: [B, D]}, carried). Heads get
  the sum of the gradients of all losses, and the probe's.
  """
  half = _halves(forward, params)
  losses, probe, features = half.losses, half.probe, half.features
  if set(features) != set(forward.modalities) or any(
    not hasattr(f, "ndim") for f in features.values()
  ):
    raise ValueError(
      "aggregate_on='features' needs one array of features per modality, got "
      f"{jax.tree.structure(features)}"
    )
  pulled = [
    half.pull_heads((_one_hot(losses, k), jnp.zeros_like(probe))) for k in range(len(losses.values))
  ]
  stacked = losses.stacked()
  combined, carried = aggregate(stacked, _stack([p[1] for p in pulled]), features, half.passed)
  ones = losses.like(jnp.ones_like(l) for l in losses.values)
  everything = half.pull_heads((ones, jnp.ones_like(probe)))[0]
  gradient = {**everything, **half.pull_encoders(combined)[0]}
  return Pulled(stacked, losses.names, half.passed, _order(gradient, params), carried=carried)
