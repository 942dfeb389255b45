"""A linear head on what a method without labels has learnt: its row in a table of classifiers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import objectives
from mmfuse.core import Batch, Clock, Method, Outputs, State
from mmfuse.fusion._late import named_key
from mmfuse.train._compose import check_share, then
from mmfuse.train._evaluate import to_batch
from mmfuse.train._lens import lift
from mmfuse.train._minimise import Aux, Player, alternate
from mmfuse.train._over_split import over_split
from mmfuse.tree import FUSED, HEADS

NAME = "head"  # of the phase
LEAST = 0.01  # standard deviation of h by which a unit is divided: a dead unit is not blown up


@dataclasses.dataclass(frozen=True)
class _Beside:
  """The lens of a method on whose parameters and statistics a head stands, under "fused"."""

  def take(self, state: State) -> State:
    params, stats = (
      {k: v for k, v in tree.items() if k != FUSED} for tree in (state.params, state.stats)
    )
    return state._replace(params=params, stats=stats)

  def put(self, state: State, own: State) -> State:
    head = lambda tree: {FUSED: tree[FUSED]}
    params, stats = {**own.params, **head(state.params)}, {**own.stats, **head(state.stats)}
    return own._replace(params=params, stats=stats)


@dataclasses.dataclass(frozen=True)
class _Hidden:
  """(state, batch) -> h [B, H] of what is present, without a gradient."""

  predict: Callable[..., Outputs]  # of the method, from the whole state
  features: Callable[[Outputs], jax.Array]

  def __call__(self, state: State, batch: Batch) -> jax.Array:
    return jax.lax.stop_gradient(self.features(self.predict(state, batch.inputs, batch.mask)))


@dataclasses.dataclass(frozen=True)
class _Predict:
  """What the method says, with the head's logits of all that is present and of each modality."""

  predict: Callable[..., Outputs]
  features: Callable[[Outputs], jax.Array]

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    state = _state(variables, memory)
    said = self.predict(state, inputs, mask)
    logits = {}
    for m in sorted(mask):
      alone = {n: v if n == m else jnp.zeros_like(v) for n, v in mask.items()}
      logits[m] = _logits(state, self.features(self.predict(state, inputs, alone)))
    fused = _logits(state, self.features(said))
    return said._replace(logits=fused, unimodal_logits=logits)


def _logits(state: State, h: jax.Array) -> jax.Array:
  """z = s(h) W + b."""
  head, moments = state.params[FUSED], state.stats[FUSED]
  dense: Any = nn.Dense(head["bias"].shape[0])
  z: jax.Array = dense.apply({"params": head}, (h - moments["mean"][None]) / moments["std"][None])
  return z


@dataclasses.dataclass(frozen=True)
class _Loss:
  """The supervised loss of the fused logits."""

  hidden: _Hidden

  def __call__(self, variables, batch: Batch, key, clock, memory):
    del key, clock
    state = _state(variables, memory)
    z = _logits(state, self.hidden(state, batch))
    return objectives.fused(Outputs(z), batch)[FUSED], Aux()


@dataclasses.dataclass(frozen=True)
class _Begin:
  """On entering: the moments of h over the training rows, present modalities alone; no label is read."""

  hidden: _Hidden

  def __call__(self, state: State, splits, key, clock: Clock) -> State:
    del key, clock
    split = splits["train"]
    rows = np.flatnonzero(to_batch(split).weight > 0)
    h = over_split(self.hidden, state, split, rows)
    moments = {"mean": jnp.asarray(h.mean(0)), "std": jnp.maximum(h.std(0), LEAST)}
    return state._replace(stats={**state.stats, FUSED: moments})


def _state(variables: Mapping[str, Any], memory) -> State:
  return State(variables["params"], variables["batch_stats"], {}, memory)


def _is_head(path: str) -> bool:
  return path.startswith(f"{FUSED}/")


def with_head(
  method: Method,
  features: Callable[[Outputs], jax.Array],
  num_outputs: int | Callable[[Mapping, Mapping], int],
  tx: optax.GradientTransformation,
  share: float = 0.5,
) -> Method:
  r"""The phases of a method that needs no label, then "head": z = s(h) W + b by the loss of the label.

  h = `features(outputs)` [B, H] of the method's own prediction from whatever a row has, so that one
  head serves all subsets; the uni-modal logits are the same head's with all else absent. s subtracts
  the mean and divides by the standard deviation (at least .01) of h over the training rows: a
  representation may vary little, and a head by gradient descent would see next to nothing. The method
  itself is frozen in the last phase. The head is params["fused"] = {"kernel", "bias"}, s is
  stats["fused"]; the method's own parameters, statistics and memory stand beside it, unchanged.

  Args:
    method: any; its phases want a metric of their own or select=core.LAST where it has no logits.
    features: of its `Outputs`, compared by value: a function of a module or a frozen dataclass.
    num_outputs: C, the head's width; or `(inputs, mask) -> C` of an example batch.
    tx: of the head alone.
    share: of the epochs for the method's phases, in their proportion; default .5.

  Raises:
    ValueError: a share outside (0, 1), a phase called "head"; at `init` features that are not [B, H],
      a method with parameters called "fused".
  """
  check_share(share)
  lifted = lift(method, _Beside())
  hidden, predict = _Hidden(lifted.predict, features), _Predict(lifted.predict, features)

  def init(key: jax.Array, batch: Batch, num_rows: int):
    state = method.init(key, batch, num_rows)
    if FUSED in state.params or FUSED in state.stats:
      raise ValueError(f"the method has parameters called {FUSED!r}, the place of the head")
    found = jax.eval_shape(
      lambda: features(method.predict(state._replace(opt={}), batch.inputs, batch.mask))
    )
    if len(found.shape) != 2:
      raise ValueError(f"features must be one array [B, H], got shape {found.shape}")
    width = num_outputs if isinstance(num_outputs, int) else num_outputs(batch.inputs, batch.mask)
    key = named_key(key, f"{HEADS}/{FUSED}")
    layer = nn.Dense(width).init(key, jnp.zeros((1, found.shape[1])))["params"]
    moments = {"mean": jnp.zeros(found.shape[1]), "std": jnp.ones(found.shape[1])}
    variables = {
      "params": {**state.params, FUSED: layer},
      "batch_stats": {**state.stats, FUSED: moments},
    }
    return variables, state.memory

  readout = alternate(
    {FUSED: Player(_is_head, _Loss(hidden), tx)}, init, predict=predict, name=NAME
  )
  (last,) = readout.phases
  last = last._replace(begin=_Begin(hidden))
  first = lifted._replace(init=method.init)
  both = then(first, readout._replace(phases=(last,)), share)
  return both._replace(functions=lifted.functions)
