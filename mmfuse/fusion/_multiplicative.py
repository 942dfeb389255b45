"""Multiplicative interactions: one modality makes the weights of the layer the other goes through.

Jayakumar et al.: Multiplicative Interactions and Where to Find Them, ICLR 2020.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._features import vectors
from mmfuse.fusion._tensor import narrowed

KINDS = ("matrix", "vector", "scalar")


def interact(
  features: Sequence[jax.Array],
  weights: Mapping[str, Any],
  kind: str = "matrix",
  clip: tuple[float, float] | None = None,
) -> jax.Array:
  r"""The interaction of x_1, ..., x_M (each [B, D_i]), M >= 2, in the given order.

  "matrix": y_c = \sum_m x2_m (\sum_n x1_n W_nmc + V_mc) + \sum_n x1_n U_nc + b_c, [B, C]; for
  three, y = x3' A(x1, x2) + B(x1, x2) with A, B such interactions, weights {"slope": A, "offset":
  B}, and so on (beyond three ours). "vector": (x1 W + V) * x2 + (x1 U + b); "scalar": (x1 . W + V)
  x2 + (x1 . U + b); both [B, D_2], and for more the result meets the next modality (ours):
  {"inner", "outer"}. weights of two: {"W", "U", "V", "b"}. clip: (low, high) of all inputs, default
  none.
  """
  if clip is not None:
    features = [jnp.clip(x, *clip) for x in features]
  return _interact(list(features), weights, kind)


def _interact(features, w, kind):
  *others, last = features
  if kind == "matrix":
    if len(others) == 1:
      slope, offset = _affine(others[0], w["W"], w["V"]), _affine(others[0], w["U"], w["b"])
    else:
      slope, offset = _interact(others, w["slope"], kind), _interact(others, w["offset"], kind)
    return jnp.einsum("bm,bm...->b...", last, slope) + offset
  if len(others) > 1:
    return _two(kind, _interact(others, w["inner"], kind), last, w["outer"])
  return _two(kind, others[0], last, w)


def _affine(x, kernel, bias):
  """x W + b over the first axis of W; b may be anything that fits [B, *rest]."""
  return jnp.tensordot(x, kernel, 1) + bias[None]


def _two(kind, x1, x2, w):
  if kind == "vector":
    return _affine(x1, w["W"], w["V"]) * x2 + _affine(x1, w["U"], w["b"])
  dot = lambda kernel, bias: jnp.tensordot(x1, kernel, 1)[:, None] + bias.reshape(1, 1)
  slope, offset = dot(w["W"], w["V"]), dot(w["U"], w["b"])
  return slope * x2 + offset


def initial(key: jax.Array, widths: Sequence[int], out: tuple[int, ...], kind: str) -> dict:
  """Weights for features of `widths`; W and U of the Xavier normal scale, V (a vector) 1, b 0.

  out: the shape after [B], used by "matrix" alone, whose V is a matrix and of that scale, too.
  """
  *others, last = widths
  one, two = jax.random.split(key)
  if len(others) > 1:
    if kind == "matrix":
      return {
        "slope": initial(one, others, (last, *out), kind),
        "offset": initial(two, others, out, kind),
      }
    return {
      "inner": initial(one, others, out, kind),
      "outer": initial(two, [others[-1], last], out, kind),
    }
  keys, first = jax.random.split(two, 3), others[0]
  if kind == "matrix":
    return {
      "W": _xavier(keys[0], (first, last, *out)),
      "U": _xavier(keys[1], (first, *out)),
      "V": _xavier(keys[2], (last, *out)),
      "b": jnp.zeros(out),
    }
  shape = (last,) if kind == "vector" else ()
  return {
    "W": _xavier(keys[0], (first, *shape)),
    "U": _xavier(keys[1], (first, *shape)),
    "V": jnp.ones(shape or (1,)),
    "b": jnp.zeros(shape or (1,)),
  }


def _xavier(key, shape):
  # Fans as the source counts them: the first two axes, each times the product of the others.
  rest = 1
  for size in shape[2:]:
    rest *= size
  return jax.random.normal(key, shape) * (2 / ((sum(shape[:2])) * rest)) ** 0.5


class Multiplicative(nn.Module):
  r"""logits_c = \sum_m x2_m (\sum_n x1_n W_nmc + V_mc) + \sum_n x1_n U_nc + b_c, and cheaper kinds.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  x1, x2, ... in order sorted(m). Absent rows count as zeros: the terms without them survive. M = 1
  is a linear head; three modalities as MultiBench's 3-way form, more by repeating it (ours);
  "vector" and "scalar" beyond two are ours.

  Args:
    kind: "matrix" (default), the linear maps of all products, directly to the logits; "vector", a
      gate of x2 from x1, and "scalar", one gate for all of x2, each followed by a linear head.
    clip: (low, high) of the features, default none (MultiBench offers it).
    products: as in `Tensor`, default 4096; "matrix" alone is narrowed.

  Raises:
    ValueError: an unknown kind, products < 1, or low >= high.

  Jayakumar et al., ICLR 2020; the forms and the scale of the weights: Liang et al., MultiBench,
  NeurIPS 2021. V = 1 and b = 0 of "vector" and "scalar" are ours: the features pass at first.
  """

  kind: str = "matrix"
  clip: tuple[float, float] | None = None
  products: int = 4096

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
    if self.products < 1:
      raise ValueError(f"products must be at least 1, got {self.products}")
    if self.clip is not None and not self.clip[0] < self.clip[1]:
      raise ValueError(f"clip is (low, high) with low < high, got {self.clip}")
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    flat = vectors(features, mask)
    if self.kind == "matrix":
      flat = narrowed(flat, self.products)
    x = list(flat.values())
    if len(x) == 1:
      alone = x[0] if self.clip is None else jnp.clip(x[0], *self.clip)
      return nn.Dense(num_classes, name="out")(alone), None
    widths = [h.shape[-1] for h in x]
    weights = self.param("interaction", initial, widths, (num_classes,), self.kind)
    y = interact(x, weights, self.kind, self.clip)
    return (y if self.kind == "matrix" else nn.Dense(num_classes, name="out")(y)), None
