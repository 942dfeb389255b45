"""Stateful rules on parity cases: each function maps a case to {output name: value}."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.balancing._famo import famo
from mmfuse.balancing._moco import moco
from mmfuse.methods.balancing._gblending_weights import gblending_weights

from ._cases import Case


def _float(x):
  return jnp.asarray(x, jnp.float32)


def moco_sequence(case: Case) -> dict:
  """Weights and direction of each step, from gradients [T, K, D] and losses [T, K]."""
  grads, losses = _float(case.inputs["grads"]), _float(case.inputs["losses"])
  knobs = ("beta", "gamma", "beta_sigma", "gamma_sigma", "rho")
  rule = moco(losses.shape[1], **{name: case.hp[name] for name in knobs})
  update, state, out = jax.jit(rule.update), rule.init({"x": grads[0, 0]}), []
  for g, l in zip(grads, losses):
    direction, state = update({"x": g}, state, losses=l)
    out.append((state.shares, direction["x"]))
  shares, directions = zip(*out)
  return {"lam": jnp.stack(shares), "direction": jnp.stack(directions)}


def famo_sequence(case: Case) -> dict:
  """Loss weights of each step, and the logits after the change of the losses [T, K] to the next."""
  losses = _float(case.inputs["losses"])
  rule = famo(losses.shape[1], learning_rate=case.hp["lr"], weight_decay=case.hp["weight_decay"])

  @jax.jit
  def step(state, now, then):
    weights, state = rule.weigh(now, state)
    return weights, rule.after(then, state)

  state, out = rule.init({}), []
  for now, then in itertools.pairwise(losses):
    weights, state = step(state, now, then)
    out.append((weights, state.logits))
  weights, logits = zip(*out)
  return {"loss_weights": jnp.stack(weights), "w": jnp.stack(logits)}


def gblending_paper(case: Case) -> dict:
  """Gain, overfitting and weights from mean losses at two checkpoints."""
  with jax.enable_x64(True):  # the cases are float64, O a difference of differences
    blend = gblending_weights(*(case.inputs[n] for n in ("train0", "val0", "train1", "val1")))
    return {
      "G": np.asarray(blend.gain),
      "O": np.asarray(blend.overfitting),
      "weights": np.asarray(blend.weights),
    }


def gblending_released(case: Case) -> dict:
  """|G| / O^2 from losses [K, epoch, batch], summed over the batches of the first and last epoch."""
  train, val = (case.inputs[f"{n}_loss_batches"].sum(-1) for n in ("train", "val"))
  with jax.enable_x64(True):
    blend = gblending_weights(train[:, 0], val[:, 0], train[:, -1], val[:, -1], variant="released")
    return {"weights": np.asarray(blend.weights)}
