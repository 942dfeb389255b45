"""Layers between the visible units of a modality and the joint layer: the pathway up, and down again.

Sohn, Shang, Lee, NIPS 2014: the mean-field loop of the deep network runs through all of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax


class Path(NamedTuple):
  """Two functions of a modality's name and rows."""

  up: Callable[[str, jax.Array], jax.Array]  # (m, units x [B, D]) -> f [B, K], inputs of the top
  down: Callable[[str, jax.Array], jax.Array]  # (m, logits of f [B, K]) -> logits of x [B, D]


STRAIGHT = Path(lambda m, x: x, lambda m, logits: logits)  # no layers between


def pathway(
  params: Mapping[str, Any], names: Sequence[str], factors: Mapping[str, tuple[float, float]]
) -> Path:
  """Through the layers `names`, lowest first: f <- sigma(u W^T f + c); back: d W sigma(.) + b.

  Args:
    params: {m: {name: {"kernel": W [D, K], "bias": b [D], "hidden": c [K]}}}.
    names: of the layers, lowest first.
    factors: {name: (u, d)}, those that the layer was trained with.
  """

  def up(m, f):
    for name in names:
      layer = params[m][name]
      f = jax.nn.sigmoid(factors[name][0] * (f @ layer["kernel"]) + layer["hidden"][None])
    return f

  def down(m, logits):
    for name in reversed(names):
      layer = params[m][name]
      logits = factors[name][1] * (jax.nn.sigmoid(logits) @ layer["kernel"].T) + layer["bias"][None]
    return logits

  return Path(up, down)
