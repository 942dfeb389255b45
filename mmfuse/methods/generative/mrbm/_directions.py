r"""The ascent direction of each of the four objectives, for one batch of complete rows.

VI is the variation of information \sum_t H(x_t | the others). Sohn, Shang, Lee, NIPS 2014, and their
code. The momentum rule treats persistent chains apart, hence two parts of a direction.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.methods.generative.mrbm import _contrastive, _mrbm, _multi_prediction
from mmfuse.methods.generative.mrbm._ascent import growing
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN, Params
from mmfuse.methods.generative.mrbm._recipes import Recipe


class Direction(NamedTuple):
  """What a step follows; trees like the parameters."""

  gradient: Any  # with momentum
  immediate: Any  # without
  memory: dict[str, jax.Array]  # the chains and the running mean of h after the step
  loss: jax.Array


# (recipe, params, inputs {m: [B, D_m]} in [0, 1], weight [B], memory, key, epoch) -> Direction
Rule = Callable[..., Direction]


def multi_prediction(recipe: Recipe, params: Params, inputs, weight, memory, key, epoch):
  """VI by mean-field prediction, all of it with momentum."""
  shares = dict.fromkeys(inputs, recipe.reveal)
  revealed = _multi_prediction.draw_revealed(key, inputs, shares)
  objective = lambda params: _multi_prediction.multi_prediction(
    params,
    inputs,
    revealed,
    weight,
    share=shares,
    steps=recipe.steps,
    nstop=growing(epoch, recipe.nstop, 20),
    sparsity_weight=recipe.sparsity_weight,
    sparsity_target=recipe.sparsity_target,
    l2=recipe.l2,
  )
  value, gradient = jax.value_and_grad(objective)(params)
  return Direction(gradient, jax.tree.map(jnp.zeros_like, gradient), memory, -value)


def likelihood(recipe: Recipe, params: Params, inputs, weight, memory, key, epoch):
  """Likelihood by persistent chains in memory["chains"]; momentum on the positive part alone."""
  uniforms = [_contrastive.uniform_from(k, tuple(inputs)) for k in jax.random.split(key)]
  positive, negative, chains = _contrastive.contrastive(
    params,
    inputs,
    weight,
    growing(epoch, recipe.kcd, 10),
    uniforms[0],
    uniforms[1],
    memory["chains"],
  )
  gradient, running = _regularised(recipe, positive, params, positive, memory)
  return Direction(
    gradient,
    jax.tree.map(jnp.negative, negative),
    {"chains": chains, "running": running},
    _energy(params, inputs, weight),
  )


def percloss(recipe: Recipe, params: Params, inputs, weight, memory, key, epoch):
  """VI by the samples of lowest free energy, half a negative phase per predicted modality."""
  sample_key, *chain_keys = jax.random.split(key, 1 + len(inputs))
  names = tuple(sorted(inputs))
  rows = _contrastive.binarise(inputs, _contrastive.uniform_from(sample_key, names))
  uniforms = {m: _contrastive.uniform_from(k, names) for m, k in zip(names, chain_keys)}
  positive, negative = _contrastive.percloss(
    params, rows, weight, growing(epoch, recipe.kcd, 10), uniforms
  )
  difference = jax.tree.map(jnp.subtract, positive, negative)
  gradient, running = _regularised(recipe, difference, params, positive, memory)
  return Direction(
    gradient,
    jax.tree.map(jnp.zeros_like, gradient),
    {**memory, "running": running},
    _energy(params, inputs, weight),
  )


def hybrid(recipe: Recipe, params: Params, inputs, weight, memory, key, epoch):
  """alpha `multi_prediction` + (1 - alpha) `likelihood`, each with its half of the key."""
  keys = jax.random.split(key)
  a = multi_prediction(recipe, params, inputs, weight, memory, keys[0], epoch)
  b = likelihood(recipe, params, inputs, weight, memory, keys[1], epoch)
  mix = lambda x, y: jax.tree.map(lambda x, y: recipe.alpha * x + (1 - recipe.alpha) * y, x, y)
  return Direction(mix(a.gradient, b.gradient), mix(a.immediate, b.immediate), b.memory, a.loss)


RULES: dict[str, Rule] = {
  "mp": multi_prediction,
  "pcd": likelihood,
  "cdpl": percloss,
  "hybrid": hybrid,
}


def init_memory(objective: str, chains: int, num_hidden: int) -> dict[str, jax.Array]:
  """{"running": mean of h [H], "chains": states h [C, H]}, where the objective has them."""
  memory = {} if objective == "mp" else {"running": jnp.zeros(num_hidden)}
  if objective in ("pcd", "hybrid"):
    memory["chains"] = jnp.zeros((chains, num_hidden))
  return memory


def _regularised(recipe: Recipe, gradient, params, positive, memory):
  running = _contrastive.running_mean(memory["running"], positive[HIDDEN]["bias"])
  return _contrastive.with_regularisers(
    gradient, params, running, recipe.sparsity_weight, recipe.sparsity_target, recipe.l2
  ), running


def _energy(params, inputs, weight) -> jax.Array:
  """The mean free energy of the rows: no loss (log Z is unknown), but what a run is watched by."""
  return objectives.weighted_mean(_mrbm.free_energy(params, inputs), weight)
