"""The types every method is made of: Batch, Source, Outputs, Clock, State, Phase, Method, Model, Objective.

A method is a value, as in Optax: pure functions and nothing that owns the loop. `train.fit` owns
jit, seeds, mesh, checkpoints and logging, once, for all of them (docs/design.md, sections 2 and 3).
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

PyTree = Any
Key = jax.Array
Metrics = dict[str, jax.Array]


ELBO = "elbo"  # in `Outputs.aux`: an evidence lower bound [B] in nats
LAST = "last"  # `Phase.select` of a phase that is not validated: it hands its last state on


# Names in `Outputs.aux` that mean the same for all models and methods; a fusion may return them.
AUX = MappingProxyType(
  {
    "split_logits": "{modality: [B, C]}: what each adds to the fused logits",
    "mu": "mean [B, D] of the latent, or {modality: [B, D]}",
    "logvar": "logarithm of its variance, of the same shape",
    "latent": "[B, D], or {modality: [B, D]}; of maps [B, H, W, D]",
    "reconstructions": "{modality: as its input}",
    "codes": "[B, bits], or {modality: [B, bits]}",
    "members": "[B, members, C], logits of an ensemble",
    "cams": "class activation maps, {modality: [B, ..., C]}",
    "elbo": "[B], evidence lower bound of each row",
  }
)


class Sequence(NamedTuple):
  """A modality whose rows end early: what `inputs[m]` is instead of an array [B, T, ...]."""

  values: Any  # [B, T, ...]; what stands after a row's end is never read
  length: Any  # int32 [B], steps that count, 1..T (0 where the row is absent)


class Unavailable(ValueError):
  """A method is undefined for this model or data; its row in a table reads "n/a: <reason>"."""


class Batch(NamedTuple):
  """What one step sees. `B` rows; a row may lack modalities and may be padding."""

  inputs: dict[str, PyTree]  # {modality: pytree of [B, ...]}
  # int [B] classes; int [B, L] 0/1; int [B, H, W] classes of places, -1 = void; float [B] or [B, R]
  # regression; a pytree; None
  label: PyTree
  mask: dict[str, jax.Array]  # {modality: bool [B]}, True = present: what the data have
  weight: jax.Array  # float [B], of the example; 0 = padding
  index: jax.Array  # type: ignore[assignment]  # int32 [B], row in its split
  extra: Mapping[str, PyTree] = {}  # {name: [B, ...]}: pseudo-labels, a second label...
  # bool [B], False: the label is unknown; the row counts in no loss or score that reads it; None = all known
  labelled: jax.Array | None = None
  # {modality: bool [B]}, False: this step drops it after the encoders, which run all the same; None = none
  keep: dict[str, jax.Array] | None = None


def label_weight(batch: Batch) -> jax.Array:
  """The weight [B] of each row in whatever reads the label: 0 where it is unknown."""
  if batch.labelled is None:
    return batch.weight
  return jnp.where(batch.labelled, batch.weight, 0.0)


def used(batch: Batch) -> Batch:
  """The batch as heads, losses and rules see it: `mask` is mask & keep."""
  if batch.keep is None:
    return batch
  kept = {m: v & batch.keep[m] for m, v in batch.mask.items()}
  return batch._replace(mask=kept, keep=None)


class Source(Protocol):
  """Rows that can be walked: what hooks get as `splits[name]`, arrays in memory or a stream alike."""

  @property
  def label(self) -> Any:
    """[N, ...] of all rows, None without labels."""

  @property
  def mask(self) -> Mapping[str, Any]:
    """{modality: bool [N]}."""

  @property
  def index(self) -> Any:
    """int [N]: the rows in the table they come from."""

  def __len__(self) -> int: ...

  def batches(self, size: int, rows: Any = None) -> Iterator[Batch]:
    """`rows` (int [n], all by default) in that order, as batches of one shape; the last is filled up.

    `Batch.index` is the row in this source; padding has weight 0 and no modality.
    """
    ...


class Outputs(NamedTuple):
  """What a model says about a batch."""

  logits: Any  # [B, C] of the fused head ([B, L], [B, R] alike), None without one
  unimodal_logits: Mapping[str, jax.Array] = {}  # {modality: [B, C]}
  features: Mapping[str, PyTree] = {}  # {modality: what the encoder returned}
  aux: Mapping[str, PyTree] = {}  # names of `AUX`, or the method's own


class Clock(NamedTuple):
  """Time as an argument: scalars of `fit`, restarting per phase: int32, traced, in steps, ints in hooks."""

  step: jax.Array  # optimisation steps done in this phase
  epoch: jax.Array  # epochs done in this phase
  batch: jax.Array  # position within the epoch
  batches: jax.Array  # batches per epoch
  epochs: jax.Array  # epochs of this phase: lets a schedule be a function of progress


class State(NamedTuple):
  """A run's state: one structure for all phases, fixed by `init`: one checkpoint template."""

  params: PyTree  # what optimisers move
  stats: PyTree  # batch statistics
  opt: dict[str, PyTree]  # {phase name: optimiser state}
  memory: dict[str, PyTree]  # the method's own: teachers, prototypes, chains...


class Phase(NamedTuple):
  """One stage of training. Only `name` and `step` are required."""

  name: str  # "train"; "teacher", "student"; "probe"...
  # (state, batch, key, clock) -> (state, metrics): pure, jit-able
  step: Callable[..., tuple[State, Metrics]]
  # Hooks run on the host, between epochs: (state, splits, key, clock), the clock of Python ints.
  begin: Callable[..., State] | None = None  # once on entering
  epoch_end: Callable[..., State] | None = None  # after an epoch; `clock.epoch` are done by then
  # -> (index, keep {m: as index} or None: `Batch.keep`) of the next epoch; index [n] is shuffled and
  # cut into batches, [N, B] is taken in the order given, -1 = padding
  rows: Callable[..., tuple[Any, Any]] | None = None
  predict: Callable[..., Outputs] | None = None  # what it is validated with; None = the method's
  # `metrics.Metric` that it is validated by; None = the task's. Its first score selects, unless `select` says
  metric: Any = None
  # Score ("accuracy", "mean/accuracy" or "worst/accuracy" over subsets, "accuracy@audio"); the best
  # params are put back on leaving. None = fit's; LAST = no validation, the last ones.
  select: str | None = None
  share: float = 1.0  # of the epoch budget


class Method(NamedTuple):
  """A multi-modal learning method."""

  # (key, batch, num_rows) -> State: shapes from one example batch; num_rows of the training split
  init: Callable[..., State]
  predict: Callable[..., Outputs]  # (state, inputs, mask) -> Outputs
  phases: tuple[Phase, ...]  # in order; most methods have one
  # "diagnose", "decode", "elbo"...
  functions: Mapping[str, Callable[..., Any]] = MappingProxyType({})


class Model(Protocol):
  """The model contract that makes per-objective gradients cheap: any object with these.

  `encode` touches encoder m only through modality m; `heads` is everything after, and gets the
  statistics that `encode` returned. `variables` is {"params": ..., "batch_stats": ...}; an encoder's
  parameters stand under its modality, those of heads under "heads" (`tree.owners_of`).

  A model may also have `unimodal_heads`, called as `heads` and returning its `unimodal_logits` alone: it
  spares the probe beside an objective that trains none of them a second fused head.
  """

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted names."""
    ...

  @property
  def restrict(self) -> Any:
    """(modalities) -> the same model on fewer; None where only its author could say."""
    ...

  def init(self, key: Key, inputs: Any, mask: Any) -> Mapping[str, PyTree]:
    """Variables from one example batch."""
    ...

  def encode(
    self, variables: Any, inputs: Any, mask: Any, *, train: bool, rngs: Any = None
  ) -> tuple[Any, PyTree]:
    """({m: features [B, ...]}, statistics)."""
    ...

  def heads(
    self, variables: Any, features: Any, mask: Any, *, train: bool, rngs: Any = None
  ) -> tuple[Outputs, PyTree]:
    """(Outputs, statistics)."""
    ...


class Generative(Model, Protocol):
  """A model that also says what a latent looks like; its parameters stand under decoders/<m>."""

  def decode(
    self, variables: Any, latents: Any, *, train: bool, rngs: Any = None
  ) -> Mapping[str, PyTree]:
    """{m: what m looks like} from latents [..., B, D] or {m: such}."""
    ...


class Functions(NamedTuple):
  """A `Model` made of functions.

  Args:
    init, encode, heads, modalities, restrict: those of `Model`; by default no names, and None.
  """

  init: Callable[..., dict[str, PyTree]]
  encode: Callable[..., tuple[dict[str, PyTree], PyTree]]
  heads: Callable[..., tuple[Outputs, PyTree]]
  modalities: tuple[str, ...] = ()
  restrict: Callable[..., Model] | None = None


class Objective(NamedTuple):
  """Losses with memory: `apply(outputs, batch, memory, **extra) -> ({name: scalar}, memory)`.

  A plain `fn(outputs, batch, **extra) -> {name: scalar}` is an objective too. Static name order:
  "fused" first, then modalities. `extra`: `key`, `clock`, and `forward` where it is named.
  """

  init: Callable[..., PyTree]  # (batch, outputs) -> memory
  apply: Callable[..., tuple[dict[str, jax.Array], PyTree]]
