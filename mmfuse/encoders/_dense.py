"""A linear layer that XLA's CPU products are fast in."""

from typing import Any

import flax.linen as nn
import jax


@jax.custom_vjp
def product(x: jax.Array, w: jax.Array) -> jax.Array:
  """x w; x [N, I], w [I, O]. The gradient of a narrowing w is (g^T x)^T, computed as that."""
  return x @ w


def _backward(kept, g):
  x, w = kept
  if w.shape[0] <= w.shape[1] or 8 * len(x) < len(w):  # of few rows, turning the result costs more
    return g @ w.T, x.T @ g
  # x^T g takes up to twice as long where I is the longer; without the barrier XLA turns this into it.
  return g @ w.T, jax.lax.optimization_barrier(g.T @ x).T


product.defvjp(lambda x, w: (x @ w, (x, w)), _backward)


def _dot_general(x, w, dimension_numbers, precision=None, preferred_element_type=None):
  """The one that `nn.Dense` asks for: the last axis of x with the first of w."""
  del dimension_numbers, precision
  y = product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[1])
  return y if preferred_element_type is None else y.astype(preferred_element_type)


class Dense(nn.Dense):
  """`nn.Dense` of x [..., I] as one product of [N, I]: over several leading axes XLA copies x on CPU.

  The same numbers and parameters, in the types that `nn.Dense` chooses. It can be differentiated twice;
  `jax.jvp` of it cannot, but of its gradient.
  """

  dot_general_cls: Any = lambda: _dot_general
