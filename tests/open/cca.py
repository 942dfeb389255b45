"""Canonical correlation in closed form, scored by mAP on query and database."""

import jax.numpy as jnp
import numpy as np

from mmfuse import masks
from mmfuse.core import LAST, Method, Outputs, Phase, State

RIDGE = 0.1  # of both covariances


def fit(state, splits, key, clock):
  x = {m: np.asarray(v, np.float64) for m, v in splits["train"].batch().inputs.items()}
  a, b = (x[m] - x[m].mean(0) for m in ("a", "b"))
  cov = lambda v: np.cov(v.T, bias=True) + RIDGE * np.eye(v.shape[1])
  half = [np.linalg.inv(np.linalg.cholesky(cov(v))) for v in (a, b)]
  u, s, vt = np.linalg.svd(half[0] @ (a.T @ b / len(a)) @ half[1].T, full_matrices=False)
  w = {"a": half[0].T @ u * s, "b": half[1].T @ vt.T * s}
  params = {m: {"mean": jnp.float32(x[m].mean(0)), "w": jnp.float32(w[m])} for m in w}
  return state._replace(params=params)


def step(state, batch, key, clock):
  return state, {"loss": jnp.zeros(())}


def predict(state, inputs, mask):
  x = masks.fill(inputs, mask)
  turn = lambda m, p: (x[m] - p["mean"][None]) @ p["w"]
  return Outputs(None, features={m: turn(m, p) for m, p in state.params.items()})


def init(key, batch, num_rows):
  width = {m: batch.inputs[m].shape[1] for m in ("a", "b")}
  least = min(width.values())
  params = {m: {"mean": jnp.zeros(d), "w": jnp.zeros((d, least))} for m, d in width.items()}
  return State(params, {}, {"cca": {}}, {})


METHOD = Method(init, predict, (Phase("cca", step, begin=fit, select=LAST),))
