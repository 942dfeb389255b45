"""MDRNN with layers of its own for each modality: pre-trained, joined, fine-tuned as one recurrent net.

Sohn, Shang, Lee: "Improved Multimodal Deep Learning with Variation of Information", NIPS 2014. The
mean-field loop runs through the missing modality's whole pathway, down to its units and up again.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import draws, objectives
from mmfuse.core import LAST, Batch, Clock, Method, Outputs, Phase, State
from mmfuse.methods.generative._mdrnn import complete_rows, counting_rows
from mmfuse.methods.generative.mrbm import _ascent, _layers, _mrbm, _multi_prediction, _units
from mmfuse.methods.generative.mrbm._deep_net import (
  STAGES,
  TOP,
  Net,
  Stage,
  layer_factors,
  prediction,
  put,
  take,
  top_of,
)
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN, Factors


def _layer_step(net: Net, number: int):
  """RBM updates of one layer of every modality, each on the rows that have the modality."""
  name, stage = net.names[number], net.stages["layer"]

  def step(state: State, batch: Batch, key: jax.Array, clock: Clock):
    below = net.path(state.params, 0, number)
    found = {}
    for k, m in zip(jax.random.split(key, len(batch.inputs)), sorted(batch.inputs)):
      there = batch.mask[m] & (batch.weight > 0)
      units = _units.to_units({m: batch.inputs[m]}, {m: there}, state.stats["range"])[m]
      found[m] = _layers.layer_direction(
        m,
        state.params[m][name],
        below.up(m, units),
        jnp.where(there, batch.weight, 0.0),
        state.memory[name][m],
        k,
        factors=net.factors[name],
        sparsity_weight=stage.sparsity_weight,
        sparsity_target=stage.sparsity_target,
        l2=stage.l2,
      )
    params, opt = _ascent.ascend(
      take(state.params, [name]),
      state.opt[name],
      {m: {name: f.gradient} for m, f in found.items()},
      {m: {name: f.immediate} for m, f in found.items()},
      clock,
      stage.decay,
    )
    memory = {**state.memory, name: {m: f.memory for m, f in found.items()}}
    log = {f"reconstruction/{m}": f.loss for m, f in found.items()}
    return State(put(state.params, params), state.stats, {**state.opt, name: opt}, memory), log

  return step


def _prediction_step(net: Net, phase: str, depth: int, direction, reveal: float):
  """Multi-prediction of the units of layer `depth`, which moves the layers above them and the top."""
  stage, parts = net.stages[phase], (*net.names[depth:], TOP)

  def step(state: State, batch: Batch, key: jax.Array, clock: Clock):
    units, weight = complete_rows(batch, state.stats["range"])
    below = net.path(state.params, 0, depth)
    data = {m: below.up(m, x) for m, x in units.items() if direction is None or m in direction}
    share = {m: reveal if direction is None or m == direction[1] else 0.0 for m in data}
    revealed = _multi_prediction.draw_revealed(key, data, share)
    objective = lambda part: prediction(
      net,
      put(state.params, part),
      data,
      revealed,
      weight,
      stage,
      depth,
      share=share,
      targets=None if direction is None else direction[1:],
      nstop=_ascent.growing(clock.epoch, net.nstop, 20),
    )
    part = take(state.params, parts)
    value, gradient = jax.value_and_grad(objective)(part)
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    part, opt = _ascent.ascend(part, state.opt[phase], gradient, nothing, clock, stage.decay)
    new = state._replace(params=put(state.params, part), opt={**state.opt, phase: opt})
    new = jax.tree.map(lambda n, o: jnp.where(weight.sum() > 0, n, o), new, state)
    return new, {"loss": -value}

  return step


def _begin(net: Net, number: int, state: State, splits, key: jax.Array, clock: Clock) -> State:
  """The biases of what layer `number` (or, after the last, the top) sees: those of the mean row.

  The first phase also finds the range of the inputs. Chains of PCD start from sigma(c).
  """
  del clock
  split = splits["train"]
  weight, there = counting_rows(split)
  if number == 0:
    ranges = _units.unit_ranges(split.inputs, there)
    state = state._replace(stats={**state.stats, "range": ranges})
  mask = {m: jnp.asarray(v) for m, v in there.items()}
  units = _units.to_units(
    {m: jnp.asarray(x) for m, x in split.inputs.items()}, mask, state.stats["range"]
  )
  name = (*net.names, TOP)[number]
  below, params, memory = net.path(state.params, 0, number), dict(state.params), dict(state.memory)
  for m, x in units.items():
    mean = objectives.mean_rows(below.up(m, x), jnp.where(mask[m], weight, 0.0))
    params[m] = {**params[m], name: {**params[m][name], "bias": _mrbm.visible_bias(mean)}}
  coins = functools.partial(draws.flat, jax.random.bernoulli, p=0.5)
  if name in memory and "chains" in next(iter(memory[name].values())):
    memory[name] = {
      m: {**old, "chains": coins(k, old["chains"].shape).astype(jnp.float32)}
      for k, (m, old) in zip(jax.random.split(key, len(units)), sorted(memory[name].items()))
    }
  return state._replace(params=params, memory=memory)


def mdrnn_deep(
  num_hidden: int = 2048,
  widths: Sequence[int] = (1024, 1024),
  *,
  direction: tuple[str, str] | None = None,
  reveal: float = 0.1,
  chains: int = 0,
  up: float = 2.0,
  down: float = 2.0,
  steps: int = 10,
  nstop: int = 10,
  infer_steps: int = 10,
  stages: Mapping[str, Stage] = STAGES,
) -> Method:
  """Layers of `widths` units per modality under one of `num_hidden` joint units, without labels.

  Phases, each of the same share of the epochs: "layer1", "layer2", ...: every modality's layers as
  RBMs, one after the other; "top": the joint layer by multi-prediction of the last layers, which
  stay; "joint": that layer and the last ones, predicting the layer below; "finetune": all, predicting
  the inputs. None is validated, the last state is handed on. All units are binary: the authors'
  first image layer of sums of five sigmoids ("step-5") is not here. Inputs, outputs and incomplete
  rows as in `mdrnn`, except that RBMs learn from every row that has their modality.

  Args:
    num_hidden, widths: the authors' for MIR-Flickr.
    direction: (source, target) of "finetune", of which the authors' is image to text: the target
      alone is predicted, from the source alone. None: each modality from all others.
    reveal: p of "finetune", of its targets; default .1. The phases before reveal nothing.
    chains: of PCD in the RBMs; default 0, CD-1.
    up, down: multipliers in the layers, 2 and 2 (the authors'): a unit within a stack gets half its
      input from either side. Downwards 1 in the first layer, upwards 1 in the joint one. 1 and 1
      make it a plain stack.
    steps, nstop: mean-field iterations in training, and through how many gradients pass in the end.
    infer_steps: of `predict`.
    stages: {"layer", "top", "joint", "finetune": Stage}. The rates are in the state;
      `fit(learning_rate=...)` sets all of them alike.

  Raises:
    ValueError: no layers, a direction that is not two modalities (at `init`).
    Unavailable: one modality, tokens.

  Reference: Sohn et al., NIPS 2014, and the recipe of their code.
  """
  if not widths:
    raise ValueError("a deep network needs layers; mdrnn has none")
  net = Net(tuple(widths), layer_factors(len(widths), up, down), down, stages, steps, nstop)
  depth = len(net.names)

  def init(key: jax.Array, batch: Batch, num_rows: int) -> State:
    del num_rows
    _units.check_real(batch.inputs)
    _check(batch.inputs, direction)
    params: dict[str, Any] = {HIDDEN: {"bias": jnp.zeros(num_hidden)}}
    memory: dict[str, Any] = {n: {} for n in net.names}
    for k, (m, x) in zip(jax.random.split(key, len(batch.inputs)), sorted(batch.inputs.items())):
      sizes = (math.prod(x.shape[1:]), *net.widths)
      keys = jax.random.split(k, depth + 1)
      params[m] = {
        n: _layers.init_layer(keys[i], m, sizes[i], sizes[i + 1]) for i, n in enumerate(net.names)
      }
      params[m][TOP] = _mrbm.init_mrbm(keys[-1], {m: jnp.full(sizes[-1], 0.5)}, num_hidden)[m]
      for n, width in zip(net.names, net.widths):
        memory[n][m] = _layers.init_layer_memory(width, chains)
    parts = {
      **{n: [n] for n in net.names},
      TOP: [TOP],
      "joint": [net.names[-1], TOP],
      "finetune": [*net.names, TOP],
    }
    opt = {
      p: _ascent.init_ascent(take(params, k), stages["layer" if p in net.names else p].rate)
      for p, k in parts.items()
    }
    return State(params, {"range": _units.whole_range(batch.inputs)}, opt, memory)

  def predict(state: State, inputs, mask) -> Outputs:
    units = _units.to_units(inputs, mask, state.stats["range"])
    h, probabilities = _mrbm.infer(
      top_of(state.params),
      units,
      mask,
      infer_steps,
      factors=Factors(down=net.top),
      path=net.path(state.params),
    )
    return Outputs(None, features={HIDDEN: h}, aux={"reconstructions": probabilities})

  begin = lambda number: functools.partial(_begin, net, number)
  share = 1 / (depth + 3)
  phases = [Phase(n, _layer_step(net, i), begin(i)) for i, n in enumerate(net.names)]
  phases += [
    Phase(TOP, _prediction_step(net, TOP, depth, None, 0.0), begin(depth)),
    Phase("joint", _prediction_step(net, "joint", depth - 1, None, 0.0)),
    Phase("finetune", _prediction_step(net, "finetune", 0, direction, reveal)),
  ]
  return Method(init, predict, tuple(p._replace(select=LAST, share=share) for p in phases))


def _check(inputs: Mapping[str, Any], direction: tuple[str, str] | None) -> None:
  _units.check_others(inputs)
  if direction is not None and not (len(set(direction)) == 2 and set(direction) <= set(inputs)):
    raise ValueError(
      f"direction must be two modalities, (source, target), got {direction}; "
      f"available: {', '.join(sorted(inputs))}"
    )
