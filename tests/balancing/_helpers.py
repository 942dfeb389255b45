"""Shared by the tests of the aggregators."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import tree
from mmfuse.core import Clock


def clock(epoch=0, step=0):
  return Clock(*(jnp.int32(n) for n in (step, epoch, 0, 1, 9)))


def apply(rule, grads, **extra):
  """One update on one leaf of gradients [K, D]: (direction [D], state)."""
  grads = np.asarray(grads, np.float32)
  state = rule.init({"x": np.zeros_like(grads[0])})
  direction, state = jax.jit(rule.update)({"x": grads}, state, **extra)
  return np.asarray(direction["x"]), state


def conflicting(seed, num, dim=6, scale=1.0):
  """Gradients [K, D] drawn around a common direction."""
  rng = np.random.default_rng(seed)
  return (scale * (rng.normal(size=(num, dim)) + 0.3 * rng.normal(size=(1, dim)))).astype(
    np.float32
  )


def late_fusion(seed=0):
  """(stacked gradients, owners) of two encoders, two heads and a fused head; K = 3."""
  rng = np.random.default_rng(seed)
  reach = {"audio": (0, 1), "image": (0, 2)}
  stacked, owners = {"heads": {}}, {"heads": {}}
  for m, rows in {**reach, "fused": (0,)}.items():

    def leaf(rows, *shape):
      keep = np.isin(np.arange(3), rows).reshape((3,) + (1,) * len(shape))
      return jnp.asarray(rng.normal(size=(3, *shape)) * keep, jnp.float32)

    if m in reach:
      stacked[m] = {"w": leaf(rows, 2, 3), "b": leaf(rows, 3)}
      owners[m] = {k: tree.Owner(m, "encoder", rows) for k in ("w", "b")}
    own = rows[-1:]
    stacked["heads"][m] = leaf(own, 3)
    owners["heads"][m] = tree.Owner(m if m in reach else None, "head", own)
  return stacked, owners


def params_of(stacked):
  return jax.tree.map(lambda g: jnp.zeros(g.shape[1:], g.dtype), stacked)
