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

from mmfuse import tree
from mmfuse.train._dependence import dependence

PLANS = ("sum", "weights", "stacked", "general")


class Forward(NamedTuple):
  """A forward pass in two halves. Losses: a tuple of scalars, part by part, then by objective."""

  encode: Callable[..., tuple[dict, Any]]  # (params) -> (features, stats)
  # (params, features, stats) -> ((losses, probe), aux)
  heads: Callable[..., tuple[tuple[tuple[jax.Array, ...], jax.Array], Any]]
  names: tuple[str, ...]  # [K]
  parts: int  # S: the losses are [S * K]
  modalities: tuple[str, ...]


def split_params(params: dict, modalities: Sequence[str]) -> tuple[dict, dict]:
  """(encoder subtrees, everything else)."""
  encoders = {m: params[m] for m in modalities if m in params}
  return encoders, {k: v for k, v in params.items() if k not in encoders}


def run(forward: Forward, params: dict):
  """The whole pass: params -> ((losses, probe), aux)."""
  return forward.heads(params, *forward.encode(params))


def structure(forward: Forward, params: dict) -> tuple[Any, bool]:
  """(owners with the rows that reach each leaf, whether the stacked plan is exact)."""
  owners = tree.owners_of(params, forward.modalities)
  flat, treedef = jax.tree.flatten(owners)
  num = len(forward.names)
  reach = dependence(lambda p: run(forward, p)[0][0], params)
  rows = [
    tuple(k for k in range(num) if any(i in reach[s * num + k] for s in range(forward.parts)))
    for i in range(len(flat))
  ]
  owners = jax.tree.unflatten(
    treedef, [tree.Owner(l.modality, l.part, r) for l, r in zip(flat, rows)]
  )
  own = {k: m for k, m in enumerate(forward.names) if m in forward.modalities}
  encoders_ok = all(
    own.get(k, l.modality) == l.modality
    for l, r in zip(flat, rows)
    if l.part == "encoder"
    for k in r
  )
  return owners, encoders_ok and _separable_features(forward, params, own)


def _separable_features(forward: Forward, params: dict, own: dict[int, str]) -> bool:
  """Whether feature m comes from encoder m alone, and the own loss of m sees no other feature."""
  encoders, rest = split_params(params, forward.modalities)
  features, stats = jax.eval_shape(forward.encode, params)
  if set(features) != set(encoders):
    return False
  names, feature_names = _leaf_names(params), _leaf_names(features)
  for m, sources in zip(feature_names, dependence(lambda p: forward.encode(p)[0], params)):
    if any(names[i] != m for i in sources):
      return False
  stats = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), stats)
  # One argument, so that a head that reads an encoder's parameters directly is seen as well.
  both = {"encoders": encoders, "features": features}
  where = [(p[0].key, p[1].key) for p, _ in jax.tree_util.tree_flatten_with_path(both)[0]]
  reach = dependence(
    lambda b: forward.heads({**rest, **b["encoders"]}, b["features"], stats)[0], both
  )
  if any(where[i][0] == "encoders" for sources in reach for i in sources):
    return False
  num = len(forward.names)
  return all(
    where[i][1] == m
    for k, m in own.items()
    for s in range(forward.parts)
    for i in reach[s * num + k]
  )


def _leaf_names(by_modality: dict) -> list[str]:
  return [path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(by_modality)[0]]


def sum_gradient(forward: Forward, params: dict):
  """-> (losses [K], gradient of their sum and of the probe, aux)."""

  def total(params):
    (losses, probe), aux = run(forward, params)
    return sum(losses) + probe, (jnp.stack(losses), aux)

  grads, (losses, aux) = jax.grad(total, has_aux=True)(params)
  return losses, grads, aux


def weighted_gradient(forward: Forward, params: dict, weigh: Callable[..., tuple[jax.Array, Any]]):
  """-> (losses [K], sum_k w_k grad_k plus the probe's gradient, aux, what `weigh` carried)."""
  (losses, probe), pull, aux = jax.vjp(lambda p: run(forward, p), params, has_aux=True)
  stacked = jnp.stack(losses)
  weights, carried = weigh(stacked, aux)
  cotangents = tuple(weights[k].astype(l.dtype) for k, l in enumerate(losses))
  return stacked, pull((cotangents, jnp.ones_like(probe)))[0], aux, carried


def _one_hot(losses: tuple, hot: int | None) -> tuple:
  return tuple(jnp.ones_like(l) if k == hot else jnp.zeros_like(l) for k, l in enumerate(losses))


def _stack(rows: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def general_gradients(forward: Forward, params: dict):
  """-> (losses, rows [S*K, *param], probe's gradient, aux): one pull-back per loss."""
  (losses, probe), pull, aux = jax.vjp(lambda p: run(forward, p), params, has_aux=True)
  rows = [pull((_one_hot(losses, k), jnp.zeros_like(probe)))[0] for k in range(len(losses))]
  probe_gradient = pull((_one_hot(losses, None), jnp.ones_like(probe)))[0]
  return jnp.stack(losses), _stack(rows), probe_gradient, aux


def stacked_gradients(forward: Forward, params: dict):
  """-> as `general_gradients`, for separable models: the own objectives share one pass per part."""
  encoders, rest = split_params(params, forward.modalities)
  features, pull_encoders, stats = jax.vjp(
    lambda e: forward.encode({**rest, **e}), encoders, has_aux=True
  )
  (losses, probe), pull_heads, aux = jax.vjp(
    lambda r, f: forward.heads({**encoders, **r}, f, stats), rest, features, has_aux=True
  )
  num = len(forward.names)
  head_rows, encoder_rows = [], []
  for part in range(forward.parts):
    pulled = [
      pull_heads((_one_hot(losses, part * num + k), jnp.zeros_like(probe))) for k in range(num)
    ]
    own = {m: pulled[k][1][m] for k, m in enumerate(forward.names) if m in features}
    silent = {m: jax.tree.map(jnp.zeros_like, features[m]) for m in features if m not in own}
    own_rows = pull_encoders({**own, **silent})[0]
    for k, name in enumerate(forward.names):
      head_rows.append(pulled[k][0])
      if name in features:
        encoder_rows.append(
          {
            m: own_rows[m] if m == name else jax.tree.map(jnp.zeros_like, encoders[m])
            for m in encoders
          }
        )
      else:
        encoder_rows.append(pull_encoders(pulled[k][1])[0])
  probe_rest = pull_heads((_one_hot(losses, None), jnp.ones_like(probe)))[0]
  probe_gradient = {**probe_rest, **jax.tree.map(jnp.zeros_like, encoders)}
  rows = {**_stack(head_rows), **_stack(encoder_rows)}
  return jnp.stack(losses), _order(rows, params), _order(probe_gradient, params), aux


def feature_labels(forward: Forward, separable: bool) -> dict[str, tree.Owner]:
  """{modality: the label of its features}: its own loss and those of no modality reach them."""
  rows = {
    m: tuple(k for k, n in enumerate(forward.names) if n == m or n not in forward.modalities)
    for m in forward.modalities
  }
  return {m: tree.Owner(m, "encoder", rows[m] if separable else None) for m in forward.modalities}


def feature_gradient(forward: Forward, params: dict, aggregate: Callable[..., tuple[Any, Any]]):
  """-> (losses [K], gradient, aux, what the rule carried): rows {m: [K, B, D]} -> {m: [B, D]}.

  Heads get the sum of the gradients of all losses, and the probe's.
  """
  encoders, rest = split_params(params, forward.modalities)
  features, pull_encoders, stats = jax.vjp(
    lambda e: forward.encode({**rest, **e}), encoders, has_aux=True
  )
  (losses, probe), pull_heads, aux = jax.vjp(
    lambda r, f: forward.heads({**encoders, **r}, f, stats), rest, features, has_aux=True
  )
  if set(features) != set(forward.modalities) or any(
    not hasattr(f, "ndim") for f in features.values()
  ):
    raise ValueError(
      "aggregate_on='features' needs one array of features per modality, got "
      f"{jax.tree.structure(features)}"
    )
  pulled = [pull_heads((_one_hot(losses, k), jnp.zeros_like(probe))) for k in range(len(losses))]
  stacked = jnp.stack(losses)
  combined, carried = aggregate(stacked, _stack([p[1] for p in pulled]), features, aux)
  everything = pull_heads((tuple(jnp.ones_like(l) for l in losses), jnp.ones_like(probe)))[0]
  grads = {**everything, **pull_encoders(combined)[0]}
  return stacked, _order(grads, params), aux, carried


def _order(updates: dict, params: dict) -> dict:
  return {k: updates[k] for k in params}
