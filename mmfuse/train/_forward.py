"""The forward pass of a supervised step, in the two halves that gradient plans pull back apart."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import masks, tree
from mmfuse import objectives as objectives_lib
from mmfuse.core import Batch, Clock, Model, Objective, Outputs, State, used
from mmfuse.train._counted import is_supervised, view
from mmfuse.train._dependence import dependence
from mmfuse.train._lens import FROZEN
from mmfuse.train._row_groups import groups

# What an objective gets by naming it: the model itself, in evaluation mode, and the batch before the
# step dropped anything (`Batch.keep`). Those that go through the encoders make a loss depend on all of
# them, which the stacked plan cannot see. `frozen`: `parts`.
HANDLES = ("forward", "encode", "heads", "complete", FROZEN)
THROUGH_ENCODERS = ("forward", "encode")


def wanted_of(fn: Any) -> tuple[str, ...]:
  """Which of the handles a function names."""
  fn = fn.apply if isinstance(fn, Objective) else fn
  return tuple(h for h in HANDLES if h in inspect.signature(fn).parameters)


def as_objective(objective: Any) -> Objective:
  """A plain function as an `Objective` without memory. Raises TypeError for anything else."""
  if isinstance(objective, Objective):
    return objective
  if not callable(objective):
    raise TypeError(
      f"an objective is a function (outputs, batch) -> losses, got {type(objective).__name__}"
    )

  def apply(outputs, batch, memory, **extra):
    return objective(outputs, batch, **extra), memory

  return Objective(lambda batch, outputs: (), apply)


def evaluated(model: Model, params, stats, inputs, mask) -> Outputs:
  """What the model says in evaluation mode."""
  variables = {"params": params, "batch_stats": stats}
  features, stats = model.encode(variables, inputs, mask, train=False, rngs=None)
  variables = {"params": params, "batch_stats": stats}
  return model.heads(variables, features, mask, train=False, rngs=None)[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Losses:
  """The losses of a pass. Their names are part of the structure: every trace of a pass tells them."""

  values: tuple[Any, ...]  # S * K scalars, part by part, then by objective
  # K, in the order in which the objective returns them: a plain dict would come back sorted.
  names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

  def like(self, values) -> "Losses":
    """Other values in their places, such as cotangents."""
    return dataclasses.replace(self, values=tuple(values))

  def stacked(self) -> jax.Array:
    """[S * K]."""
    return jnp.stack(self.values)


class Between(NamedTuple):
  """What the heads get of the first half beside features."""

  stats: Any  # after the encoders: with the old ones, the heads would write over their update
  weight: jax.Array  # [B], as the perturbation left it
  mask: dict[str, jax.Array]  # {m: bool [B]}, without what the step drops


class Passed(NamedTuple):
  """What a pass leaves beside its losses."""

  outputs: Outputs
  stats: Any
  memory: Any  # the objective's


class Keys(NamedTuple):
  """One key per forward pass, shared by all objectives."""

  dropout: jax.Array
  noise: jax.Array  # the perturbation's
  loss: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Minimised:
  """What a supervised method minimises: objectives of what a model says of a batch."""

  model: Model
  objective: Objective
  wanted: tuple[str, ...] = ()  # the handles that the objective names
  perturb: Callable[..., Any] | None = None
  parts: int = 1  # S groups of rows, each with losses of its own
  name: str = "train"  # of the phase

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted."""
    return tuple(sorted(self.model.modalities))

  @property
  def memory(self) -> str:
    """Where the objective's memory stands in the state's."""
    return "objective" if self.name == "train" else f"objective/{self.name}"

  @property
  def through_encoders(self) -> tuple[str, ...]:
    """The handles that the objective names and that make its losses depend on all encoders."""
    return tuple(h for h in self.wanted if h in THROUGH_ENCODERS)

  def forward(
    self, state: State, batch: Batch, key: jax.Array, clock: Clock, probe: bool = True
  ) -> "Forward":
    """The pass of a training step."""
    return Forward(self, state, batch, Keys(*jax.random.split(key, 3)), clock, probe)


@dataclasses.dataclass(frozen=True, eq=False)
class Forward:
  """A pass over one batch as functions of the parameters."""

  of: Minimised
  state: State
  batch: Batch
  keys: Keys
  clock: Clock
  probe: bool  # whether heads that no objective trains are fitted beside

  @property
  def parts(self) -> int:
    """S: there are S * K losses."""
    return self.of.parts

  @property
  def modalities(self) -> tuple[str, ...]:
    """Of the model."""
    return self.of.modalities

  def losses(self, params, label) -> Losses:
    """Those of other labels, without the probe: what `dependence` is asked of."""
    batch = self.batch._replace(label=label)
    return dataclasses.replace(self, batch=batch, probe=False).run(params)[0][0]

  def reads_label(self) -> dict[str, bool]:
    """{objective: whether it can depend on the label}, in the order of the losses."""
    reach: Losses = dependence(lambda l: self.losses(self.state.params, l), self.batch.label)
    count = len(reach.names)
    return {n: any(map(bool, reach.values[k::count])) for k, n in enumerate(reach.names)}

  def run(self, params) -> tuple[tuple[Losses, jax.Array], Passed]:
    """The whole pass: params -> ((losses, probe), what the step keeps)."""
    return self.heads(params, *self.encode(params))

  def encode(self, params) -> tuple[dict[str, Any], Between]:
    """params -> (features, what heads get beside them)."""
    batch, variables = self.batch, {"params": params, "batch_stats": self.state.stats}
    # The encoders see all that is there, so that their statistics count it. What the step drops goes
    # here, after them: a dropped feature then costs no second pass.
    features, stats = self.of.model.encode(
      variables, batch.inputs, batch.mask, train=True, rngs={"dropout": self.keys.dropout}
    )
    seen = used(batch)
    if batch.keep is not None:
      features = masks.fill(features, seen.mask)
    if self.of.perturb is not None:
      handles = self._handles(params, stats, wanted_of(self.of.perturb))
      features = self.of.perturb(features, seen, key=self.keys.noise, clock=self.clock, **handles)
      if isinstance(features, tuple):  # it weighs the rows anew
        features, seen = features
    return features, Between(stats, seen.weight, seen.mask)

  def heads(self, params, features, between: Between) -> tuple[tuple[Losses, jax.Array], Passed]:
    """(params, features, what heads get beside them) -> ((losses, probe), what the step keeps)."""
    batch = self.batch._replace(weight=between.weight, mask=between.mask, keep=None)
    outputs, stats = self._heads(params, features, between)
    handles = self._handles(params, between.stats, self.of.wanted)
    extra = {"key": self.keys.loss, "clock": self.clock, **handles}
    memory = self.state.memory[self.of.memory]
    losses: dict[str, jax.Array] = {}
    values: list[jax.Array] = []
    for group in groups(batch, self.of.parts):  # the memory goes from part to part
      losses, memory = self.of.objective.apply(outputs, group, memory, **extra)
      values += [l.astype(jnp.float32) for l in losses.values()]
    probed = self._probed(params, features, between, batch, outputs, losses)
    return (Losses(tuple(values), tuple(losses)), probed), Passed(outputs, stats, memory)

  def _heads(self, params, features, between: Between, say: Any = None) -> Any:
    """What `say` says of the features, by default the model's `heads`: (Outputs, statistics)."""
    variables = {"params": params, "batch_stats": between.stats}
    options: dict[str, Any] = {"train": True, "rngs": {"dropout": self.keys.dropout}}
    return (say or self.of.model.heads)(variables, features, between.mask, **options)

  def _probed(self, params, features, between, batch: Batch, outputs: Outputs, losses) -> jax.Array:
    """The loss of the uni-modal heads that no objective trains, with a gradient for them alone."""
    total = jnp.zeros((), jnp.float32)
    untrained = [m for m in sorted(outputs.unimodal_logits) if m not in losses]
    if not (self.probe and untrained and is_supervised(batch.label)):
      return total
    # A second pass, in which nothing but these heads carries a gradient: what the rule's losses reach
    # stays the rule's, to the last bit.
    features = jax.lax.stop_gradient(features)
    alone = _heads_alone(params, self.modalities)
    # Where a model says them alone, no fused head is traced of which nothing comes.
    short = getattr(self.of.model, "unimodal_heads", None)
    said = self._heads(alone, features, between, short)
    logits = said if short else said[0].unimodal_logits
    fit = objectives_lib.unimodal(outputs._replace(unimodal_logits=logits), batch)
    return sum((fit[m] for m in untrained), total)

  def _handles(self, params, stats, names: tuple[str, ...]) -> dict[str, Any]:
    """The handles of these names: the model in evaluation mode, all differentiable, and what to read."""
    model, modalities = self.of.model, self.modalities
    variables = {"params": params, "batch_stats": stats}
    options: dict[str, Any] = {"train": False, "rngs": None}
    every = {
      "forward": lambda inputs, mask: evaluated(
        model, params, stats, *view(modalities, inputs, mask)
      ),
      "encode": lambda inputs, mask: model.encode(
        variables, *view(modalities, inputs, mask), **options
      )[0],
      "heads": lambda features, mask: model.heads(variables, features, mask, **options)[0],
      "complete": self.batch,
      FROZEN: self.state.memory.get(FROZEN, {}),
    }
    return {name: every[name] for name in names}


def _heads_alone(params, modalities: tuple[str, ...]):
  """`params` with a gradient for the uni-modal heads alone."""
  return jax.tree.map(
    lambda p, l: p if l.part == "head" and l.modality else jax.lax.stop_gradient(p),
    params,
    tree.owners_of(params, modalities),
  )
