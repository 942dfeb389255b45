"""What the builders of this package share: composing phases, split evaluations, refusals."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import encoders, masks, train
from mmfuse.core import Batch, Method, Outputs, Phase, State, Unavailable
from mmfuse.fusion import LateFusion


def optimiser(tx: optax.GradientTransformation | None, learning_rate: float):
  """`tx`, or the optimiser that every row of a table shares."""
  return train.sgd(learning_rate) if tx is None else tx


def validation_of(splits: Mapping[str, Any], method: str) -> Any:
  """The validation split. Raises `Unavailable` where the data have none."""
  if splits.get("validation") is None:
    raise Unavailable(f"{method} needs a validation split, and the data have none")
  return splits["validation"]


def with_fusion(model: Any, fusion: Any, method: str) -> LateFusion:
  """`model` with another fusion; its encoders keep their steps for one that attends to them.

  Raises `Unavailable` for a model that has no fusion to replace.
  """
  if not isinstance(model, LateFusion):
    raise Unavailable(
      f"{method} replaces the fusion of a LateFusion model, got a {type(model).__name__}"
    )
  if getattr(fusion, "reads_steps", False):
    steps = {m: encoders.keep_steps(e) for m, e in model.encoders.items()}
    return dataclasses.replace(model, fusion=fusion, encoders=steps)
  return dataclasses.replace(model, fusion=fusion)


def with_memory(method: Method, extend: Callable[[State, int], dict[str, Any]]) -> Method:
  """`method` whose initial memory also holds `extend(state, num_rows)`: the structure `init` fixes."""

  def init(key, batch, num_rows):
    state = method.init(key, batch, num_rows)
    return state._replace(memory={**state.memory, **extend(state, num_rows)})

  return method._replace(init=init)


def remember(state: State, **entries: Any) -> State:
  """`state` with entries of its memory replaced."""
  return state._replace(memory={**state.memory, **entries})


def weights_of(state: State) -> dict[str, Any]:
  """{"params", "stats"}: a copy of the model to keep in memory."""
  return {"params": state.params, "stats": state.stats}


def restore(state: State, kept: Mapping[str, Any]) -> State:
  """`state` with the parameters and statistics that `weights_of` kept."""
  return state._replace(params=kept["params"], stats=kept["stats"])


def then(first: Method, second: Method) -> Method:
  """The phases of both, one after the other, on one state; `second` predicts.

  Both start from the same key, hence from the same parameters; a phase of `first` is validated
  with the prediction of `first`.
  """

  def init(key, batch, num_rows):
    a, b = first.init(key, batch, num_rows), second.init(key, batch, num_rows)
    return b._replace(opt={**a.opt, **b.opt}, memory={**a.memory, **b.memory})

  early = tuple(p._replace(predict=p.predict or first.predict) for p in first.phases)
  return second._replace(init=init, phases=(*early, *second.phases))


def only_phase(method: Method) -> Phase:
  """The phase of a method that has one."""
  (phase,) = method.phases
  return phase


def without(variables: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Variables as a wrapped model knows them: without the wrapper's own parameters."""
  params = {k: v for k, v in variables["params"].items() if k != name}
  return {**variables, "params": params}


def outputs_of(model: Any, kept: Mapping[str, Any], inputs: Mapping, mask: Mapping) -> Outputs:
  """What a model says in evaluation mode with weights as `weights_of` keeps them."""
  names = sorted(model.modalities)
  mask = {m: mask[m] for m in names}
  inputs = masks.fill({m: inputs[m] for m in names}, mask)
  variables = {"params": kept["params"], "batch_stats": kept["stats"]}
  features, stats = model.encode(variables, inputs, mask, train=False, rngs=None)
  return model.heads({**variables, "batch_stats": stats}, features, mask, train=False, rngs=None)[0]


def num_outputs(model: Any, inputs: Mapping, mask: Mapping) -> int:
  """The width of a model's logits, from shapes alone. Raises Unavailable for one without heads."""

  def run(key):
    variables = model.init(key, inputs, mask)
    kept = {"params": variables["params"], "stats": variables.get("batch_stats", {})}
    return outputs_of(model, kept, inputs, mask)

  outputs = jax.eval_shape(run, jax.random.key(0))
  found = [z for z in (outputs.logits, *outputs.unimodal_logits.values()) if z is not None]
  if not found:
    raise Unavailable("the number of outputs is read off the model's heads, and it has none")
  width: int = found[0].shape[-1]
  return width


def judged_rows(split: Any) -> np.ndarray:
  """Places of the rows whose label counts. Raises Unavailable where there is none."""
  rows = np.flatnonzero(train.judged(split))
  if not len(rows):
    raise Unavailable("it reads labels between epochs, and no row of a part has one")
  return rows


def spread_rows(split: Any, most: int) -> np.ndarray:
  """Up to `most` of the `judged_rows`, evenly spaced: files are often sorted by class."""
  rows = judged_rows(split)
  return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]


def mean_logits(outputs: Outputs, mask: Mapping[str, jax.Array]) -> Outputs:
  """logits = the mean of z_m [B, C] over the present modalities; 0 where none is present."""
  names = sorted(outputs.unimodal_logits)
  present = jnp.stack([mask[m] for m in names])[..., None]
  stacked = jnp.stack([outputs.unimodal_logits[m] for m in names])
  total = jnp.where(present, stacked, 0.0).sum(0)
  return outputs._replace(logits=total / jnp.maximum(present.sum(0), 1))


@functools.partial(jax.jit, static_argnames=("function",))
def _apply(function, state, batch):
  return function(state, batch)


def over_split(
  function: Callable[[State, Batch], Any],
  state: State,
  split: Any,
  rows: np.ndarray | None = None,
  *,
  batch_size: int = 512,
) -> Any:
  """`function(state, batch)` [b, ...] over rows of a split, all of them by default -> [n, ...].

  Compiled once per function: give one that compares by value (a frozen dataclass of the model).
  The optimiser state is left out of what is compiled.
  """
  count = len(split) if rows is None else len(rows)
  parts = [
    jax.device_get(_apply(function, state._replace(opt={}), batch))
    for batch in split.batches(batch_size, rows)
  ]
  return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


def generator(key: jax.Array) -> np.random.Generator:
  """A host generator that depends on `key` alone."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
