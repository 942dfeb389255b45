"""MDRNN with one layer, trained by multi-prediction, and its maximum likelihood baseline (PCD).

Sohn, Shang, Lee: "Improved Multimodal Deep Learning with Variation of Information", NIPS 2014.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.core import Batch, Clock, Method, Outputs, Phase, State
from mmfuse.generative import _contrastive, _mrbm, _multi_prediction
from mmfuse.generative._mrbm import HIDDEN

NAME = "train"


def rate_of(epoch: jax.Array, rate: float, decay: float) -> jax.Array:
  """epsilon / (1 + decay t), t = epochs done + 1."""
  return rate / (1 + decay * (epoch + 1))


def momentum_of(epoch: jax.Array) -> jax.Array:
  """.33 in the first five epochs, then .47."""
  return jnp.where(epoch < 5, 0.33, 0.47)


def growing(epoch: jax.Array, most: int, every: int) -> jax.Array:
  """min(most, 1 + floor(epochs done / every)): nstop grows every 20 epochs, kcd every 10."""
  return jnp.minimum(most, 1 + epoch // every)


def ascend(state: State, gradient: Any, immediate: Any, clock: Clock, rate: float, decay: float):
  """g <- mu g + (1 - mu) eps gradient; w <- w + g + eps immediate. A NaN skips the update."""
  eps, mu = rate_of(clock.epoch, rate, decay), momentum_of(clock.epoch)
  velocity = jax.tree.map(lambda g, d: mu * g + (1 - mu) * eps * d, state.opt[NAME], gradient)
  params = jax.tree.map(lambda w, g, d: w + g + eps * d, state.params, velocity, immediate)
  fine = jnp.stack([jnp.isfinite(w).all() for w in jax.tree.leaves(params)]).all()
  keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(fine, n, o), new, old)
  return state._replace(params=keep(params, state.params),
                        opt={**state.opt, NAME: keep(velocity, state.opt[NAME])})  # fmt: skip


def _complete(batch: Batch):
  """(inputs with zeros where a row is not complete, weight [B] of complete rows)."""
  there = jnp.stack([batch.weight > 0, *batch.mask.values()]).all(0)
  inputs = {m: jnp.where(there[:, None], x, 0.0) for m, x in sorted(batch.inputs.items())}
  return inputs, there.astype(jnp.float32)


def _init(key, batch, num_hidden, negchain=0):
  inputs, _ = _complete(batch)
  params = _mrbm.init_mrbm(key, {m: jnp.full(x.shape[1], 0.5) for m, x in inputs.items()}, num_hidden)
  chains = {"chains": jnp.zeros((negchain, num_hidden)), "running": jnp.zeros(num_hidden)}
  velocity = jax.tree.map(jnp.zeros_like, params)
  return State(params, {}, {NAME: velocity}, chains if negchain else {})


def _begin(state: State, splits, key: jax.Array) -> State:
  """Visible biases from the means of all complete training rows; chains from the biases."""
  split = splits["train"]
  rows = next(iter(split.mask.values())).shape[0]
  inputs, weight = _complete(Batch(split.inputs, None, split.mask, jnp.ones(rows), jnp.arange(rows)))
  params = dict(state.params)
  for m, x in inputs.items():
    bias = _mrbm.visible_bias(objectives.mean_rows(x, weight))
    params[m] = {**params[m], "bias": bias}
  if "chains" not in state.memory:
    return state._replace(params=params)
  uniform = _contrastive.uniform_from(key, tuple(inputs))
  chains = _contrastive.init_chains(params, len(state.memory["chains"]), uniform).hidden
  return state._replace(params=params, memory={**state.memory, "chains": chains})


def _predict(state, inputs, mask, steps):
  h, probabilities = _mrbm.infer(state.params, inputs, mask, steps)
  return Outputs(None, features={HIDDEN: h}, aux={"reconstructions": probabilities})


def mdrnn(num_hidden: int = 1000, learning_rate: float = 0.01, *, decay: float = 0.005,
          share: float = 0.25, steps: int = 5, nstop: int = 5, sparsity_weight: float = 0.1,
          sparsity_target: float = 0.1, l2: float = 1e-4, infer_steps: int = 10) -> Method:  # fmt: skip
  """An MRBM that maximises `multi_prediction`; defaults are the authors' for MNIST.

  Inputs {m: [B, D_m]} in [0, 1]; labels are not read and incomplete rows not trained on. Outputs have
  no logits: the method is unsupervised, and `fit` trains it on data whose validation split is None,
  to its last epoch. features["hidden"] [B, H] is h given what is present, for a classifier of the
  caller. Visible biases start from the means of the training rows.

  Reference: Sohn et al., NIPS 2014, and their code.
  """

  def step(state: State, batch: Batch, key: jax.Array, clock: Clock):
    inputs, weight = _complete(batch)
    shares = dict.fromkeys(inputs, share)
    revealed = _multi_prediction.draw_revealed(key, inputs, shares)
    objective = lambda params: _multi_prediction.multi_prediction(
      params, inputs, revealed, weight, share=shares, steps=steps,
      nstop=growing(clock.epoch, nstop, 20), sparsity_weight=sparsity_weight,
      sparsity_target=sparsity_target, l2=l2)  # fmt: skip
    value, gradient = jax.value_and_grad(objective)(state.params)
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    return ascend(state, gradient, nothing, clock, learning_rate, decay), {"loss": -value}

  init = functools.partial(_init, num_hidden=num_hidden)
  return Method(init, functools.partial(_predict, steps=infer_steps), (Phase(NAME, step, _begin),))


def mdrnn_pcd(num_hidden: int = 1000, learning_rate: float = 0.01, *, decay: float = 0.005,
              kcd: int = 10, negchain: int = 500, sparsity_weight: float = 0.3,
              sparsity_target: float = 0.05, l2: float = 1e-4, infer_steps: int = 10) -> Method:  # fmt: skip
  """The same model by maximum likelihood: persistent chains in the memory "chains" [C, H].

  Momentum is on the positive part alone. Inputs, outputs and source of the defaults as `mdrnn`.
  """

  def step(state: State, batch: Batch, key: jax.Array, clock: Clock):
    inputs, weight = _complete(batch)
    uniforms = [_contrastive.uniform_from(k, tuple(inputs)) for k in jax.random.split(key)]
    positive, negative, chains = _contrastive.contrastive(
      state.params, inputs, weight, growing(clock.epoch, kcd, 10), uniforms[0], uniforms[1],
      state.memory["chains"])  # fmt: skip
    running = _contrastive.running_mean(state.memory["running"], positive[HIDDEN]["bias"])
    positive = _contrastive.with_regularisers(
      positive, state.params, running, sparsity_weight, sparsity_target, l2)  # fmt: skip
    energy = _mrbm.free_energy(state.params, inputs)
    state = ascend(state, positive, jax.tree.map(jnp.negative, negative), clock, learning_rate,
                   decay)  # fmt: skip
    memory = {"chains": chains, "running": running}
    loss = objectives.weighted_mean(energy, weight)
    return state._replace(memory=memory), {"free_energy": loss}

  init = functools.partial(_init, num_hidden=num_hidden, negchain=negchain)
  return Method(init, functools.partial(_predict, steps=infer_steps), (Phase(NAME, step, _begin),))
