"""The terms of WSS-CMER, of what M networks say of two views of a batch (Patel and Dolz, 2022)."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.methods.segmentation._maps import map_distances

TERMS = ("ce", "kl", "er", "cmer")


class View(NamedTuple):
  """What all networks say of one view; every map lies as the second view's do."""

  logits: dict[str, jax.Array]  # {m: p [B, C]}
  maps: dict[str, jax.Array]  # {m: [B, H, W, C]}, max-normalised


class Rows(NamedTuple):
  """Which rows there are, and what is known of them."""

  label: jax.Array  # y int [B]; class 0 is that nothing is there
  mask: Mapping[str, jax.Array]  # {m: bool [B]}
  weight: jax.Array  # [B]
  known: jax.Array  # [B], the weight where the label is known, else 0


def cross_entropy(m: str, views: tuple[View, View], rows: Rows) -> jax.Array:
  """1/2 [CE(p1_m, y) + CE(p2_m, y)], the mean over rows that have m."""
  weight = _of(rows.known, rows.mask[m])
  losses = [objectives.row_losses(v.logits[m], rows.label) for v in views]
  return objectives.weighted_mean(0.5 * (losses[0] + losses[1]), weight)


def mutual_learning(m: str, views: tuple[View, View], rows: Rows, temperature: float) -> jax.Array:
  r"""1/(M-1) \sum_{j != m} 1/2 \sum_v T^2 KL(softmax(pv_j / T) || softmax(pv_m / T)), others constant."""

  def pair(j: str, weight: jax.Array) -> jax.Array:
    each = [
      objectives.logit_distillation(
        v.logits[m], v.logits[j], weight, kind="kl", temperature=temperature
      )
      for v in views
    ]
    return 0.5 * (each[0] + each[1])

  return _over_others(m, rows, rows.weight, pair)


def equivariance(m: str, views: tuple[View, View], rows: Rows) -> jax.Array:
  """The mean over rows and places of 1[y > 0] (A_m - B_m)^2, A and B the maps of class y in the two views."""
  a, b = (_own(v.maps[m], rows.label) for v in views)
  values = jnp.where(rows.label > 0, jnp.square(a - b).mean((1, 2)), 0.0)
  return objectives.weighted_mean(values, _of(rows.known, rows.mask[m]))


def cross_modality(m: str, views: tuple[View, View], rows: Rows) -> jax.Array:
  r"""1/(M-1) \sum_{j != m} 1/2 [R(A_m, B_j; p2_j) + R(B_m, A_j; p1_j)], the others constants.

  R(p, q; z) is the mean over rows of 1[y > 0] 1[argmax z = y] times `map_distances`: the map of another
  modality teaches where that modality recognised what there is.
  """
  first, second = views

  def pair(j: str, weight: jax.Array) -> jax.Array:
    found = []
    for own, other in ((first, second), (second, first)):
      teacher = jax.lax.stop_gradient(_own(other.maps[j], rows.label))
      right = jnp.argmax(other.logits[j], -1) == rows.label
      distance = map_distances(_own(own.maps[m], rows.label), teacher)
      values = jnp.where(right & (rows.label > 0), distance, 0.0)
      found.append(objectives.weighted_mean(values, weight))
    return 0.5 * (found[0] + found[1])

  return _over_others(m, rows, rows.known, pair)


def _own(maps: jax.Array, label: jax.Array) -> jax.Array:
  """[B, H, W]: of each row the map of its class, of one of class 0 that of class 1, which nobody reads."""
  chosen = jax.nn.one_hot(jnp.maximum(label, 1), maps.shape[-1], dtype=maps.dtype)
  return (maps * chosen[:, None, None]).sum(-1)


def _of(weight: jax.Array, present: jax.Array) -> jax.Array:
  return jnp.where(present, weight, 0.0)


def _over_others(m: str, rows: Rows, weight: jax.Array, pair) -> jax.Array:
  """The mean of `pair(j, weight)` over the other modalities j that share a row with m; 0 without any."""
  total = count = jnp.zeros((), jnp.float32)
  for j in sorted(rows.mask):
    if j != m:
      both = _of(weight, rows.mask[m] & rows.mask[j])
      total, count = total + pair(j, both), count + jnp.any(both > 0)
  return total / jnp.maximum(count, 1.0)
