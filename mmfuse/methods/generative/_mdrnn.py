"""MDRNN with one layer: an MRBM trained so that each modality predicts the others.

Sohn, Shang, Lee: "Improved Multimodal Deep Learning with Variation of Information", NIPS 2014.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import objectives
from mmfuse.core import LAST, Batch, Clock, Method, Outputs, Phase, State, Unavailable
from mmfuse.methods.generative.mrbm import (
  _ascent,
  _contrastive,
  _directions,
  _mrbm,
  _recipes,
  _units,
)
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN

NAME = "train"


def complete_rows(batch: Batch, ranges: _units.Ranges):
  """(units {m: [B, D_m]}, 0 where a row is not complete; weight [B] of complete rows)."""
  there = jnp.stack([batch.weight > 0, *batch.mask.values()]).all(0)
  mask = dict.fromkeys(batch.inputs, there)
  return _units.to_units(batch.inputs, mask, ranges), jnp.where(there, batch.weight, 0.0)


def counting_rows(split: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """(weight [N] of the rows, mask {m: bool [N]} without rows of weight 0) of a split."""
  weight = getattr(split, "weight", None)
  rows = next(iter(split.mask.values())).shape[0]
  weight = np.ones(rows, np.float32) if weight is None else np.asarray(weight, np.float32)
  return weight, {m: np.asarray(v) & (weight > 0) for m, v in split.mask.items()}


def begin_units(splits: Any) -> tuple[_units.Ranges, dict[str, jax.Array]]:
  """(ranges, {m: visible biases of the mean unit}) of the complete training rows.

  Raises Unavailable where no training row is complete.
  """
  split = splits["train"]
  weight, mask = counting_rows(split)
  ranges = _units.unit_ranges(split.inputs, mask)
  present = {m: jnp.asarray(v) for m, v in mask.items()}
  batch = Batch(split.inputs, None, present, jnp.asarray(weight), jnp.arange(len(weight)))
  units, weight = complete_rows(batch, ranges)
  if not float(weight.sum()):
    raise Unavailable("it learns from rows that have all modalities, and no training row has")
  return ranges, {m: _mrbm.visible_bias(objectives.mean_rows(x, weight)) for m, x in units.items()}


def mdrnn(
  num_hidden: int = 1000,
  learning_rate: float = 0.01,
  objective: str = "mp",
  *,
  infer_steps: int = 10,
  **changes: Any,
) -> Method:
  """An MRBM of `num_hidden` units on {m: [B, ...]}, trained without labels.

  Real values are mapped to [0, 1] (`unit_ranges`, kept in the statistics) and flattened; rows that
  lack a modality are not trained on. Outputs have no logits: the method is unsupervised, `fit`
  keeps its last epoch. features["hidden"] [B, H] is h given what is present, for a classifier
  of the caller; aux["reconstructions"] {m: [B, D_m]}. `mdrnn_with_head` has a head as well.

  Args:
    num_hidden, learning_rate: the authors' for MNIST. The rate is in the state, `fit` may set it.
    objective: "mp" multi-prediction, the paper's best; "cdpl" CD-PercLoss; "pcd" maximum
      likelihood, the baseline; "hybrid" of mp and pcd. Each has the numbers of its own recipe.
    infer_steps: mean-field steps of `predict`.
    changes: other numbers of the recipe: decay, l2, sparsity_weight, sparsity_target; of predictions
      steps, nstop, reveal; of chains kcd, chains; of the hybrid alpha.

  Raises:
    ValueError: an unknown objective or number.
    Unavailable: tokens; one modality where it is to be predicted from others; no complete row.

  Reference: Sohn et al., NIPS 2014, and their code.
  """
  recipe = _recipes.recipe_of(objective, changes)
  rule = _directions.RULES[objective]

  def init(key: jax.Array, batch: Batch, num_rows: int) -> State:
    del num_rows
    _units.check_real(batch.inputs)
    if objective != "pcd":
      _units.check_others(batch.inputs)
    halves = {m: jnp.full(math.prod(x.shape[1:]), 0.5) for m, x in batch.inputs.items()}
    params = _mrbm.init_mrbm(key, halves, num_hidden)
    memory = _directions.init_memory(objective, recipe.chains, num_hidden)
    opt = _ascent.init_ascent(params, learning_rate)
    return State(params, {"range": _units.whole_range(batch.inputs)}, {NAME: opt}, memory)

  def begin(state: State, splits, key: jax.Array, clock: Clock) -> State:
    del clock
    ranges, biases = begin_units(splits)
    params = {**state.params, **{m: {**state.params[m], "bias": b} for m, b in biases.items()}}
    state = state._replace(params=params, stats={**state.stats, "range": ranges})
    if "chains" not in state.memory:
      return state
    uniform = _contrastive.uniform_from(key, tuple(biases))
    chains = _contrastive.init_chains(params, recipe.chains, uniform).hidden
    return state._replace(memory={**state.memory, "chains": chains})

  def step(state: State, batch: Batch, key: jax.Array, clock: Clock):
    units, weight = complete_rows(batch, state.stats["range"])
    found = rule(recipe, state.params, units, weight, state.memory, key, clock.epoch)
    params, opt = _ascent.ascend(
      state.params, state.opt[NAME], found.gradient, found.immediate, clock, recipe.decay
    )
    new = State(params, state.stats, {**state.opt, NAME: opt}, {**state.memory, **found.memory})
    # Without a complete row there is nothing to learn from, and chains alone would push weights away.
    new = jax.tree.map(lambda n, o: jnp.where(weight.sum() > 0, n, o), new, state)
    return new, {"loss" if objective in ("mp", "hybrid") else "free_energy": found.loss}

  def predict(state: State, inputs, mask) -> Outputs:
    units = _units.to_units(inputs, mask, state.stats["range"])
    h, probabilities = _mrbm.infer(state.params, units, mask, infer_steps)
    return Outputs(None, features={HIDDEN: h}, aux={"reconstructions": probabilities})

  return Method(init, predict, (Phase(NAME, step, begin, select=LAST),))
