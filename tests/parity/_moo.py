"""Gram-matrix rules on the cases of `moo_baselines`: each function maps a case to {output: value}."""

import jax
import jax.numpy as jnp

from mmfuse import tree
from mmfuse.balancing._aligned_mtl import aligned_mtl, aligned_mtl_weights
from mmfuse.balancing._fairgrad import fairgrad_weights
from mmfuse.balancing._imtl_g import imtl_g, imtl_g_weights
from mmfuse.balancing._nash_mtl import nash_mtl, nash_mtl_weights

from ._cases import Case


def _gram(grads):
  return tree.gram({"x": grads})


def _direction(rule, grads):
  """One jitted update on a single leaf of stacked gradients [K, D]."""
  update = jax.jit(lambda g: rule.update({"x": g}, rule.init({"x": g[0]}))[0]["x"])
  return update(grads)


def imtl_g_case(case: Case) -> dict:
  """Weights and direction, normalised by their sum whatever its sign, as in that code."""
  grads = jnp.asarray(case.inputs["grads"], jnp.float32)
  return {
    "alpha": imtl_g_weights(_gram(grads), guard=False),
    "direction": _direction(imtl_g(grads.shape[0], guard=False), grads),
  }


def nash(case: Case) -> dict:
  """Weights, direction without clipping, and the worst |alpha_i (A alpha)_i - 1|."""
  grads = jnp.asarray(case.inputs["grads"], jnp.float32)
  gram = _gram(grads)
  alpha = nash_mtl_weights(gram)
  return {
    "alpha": alpha,
    "fixed_point_residual": jnp.max(jnp.abs(alpha * (gram @ alpha) - 1.0)),
    "direction": _direction(nash_mtl(grads.shape[0], max_norm=None), grads),
  }


def aligned(case: Case) -> dict:
  """Weights and direction."""
  grads = jnp.asarray(case.inputs["grads"], jnp.float32)
  return {
    "alpha": aligned_mtl_weights(_gram(grads)),
    "direction": _direction(aligned_mtl(grads.shape[0]), grads),
  }


def fairgrad(case: Case) -> dict:
  """Weights."""
  grads = jnp.asarray(case.inputs["grads"], jnp.float32)
  return {"w": fairgrad_weights(_gram(grads), float(case.hp["alpha"]))}
