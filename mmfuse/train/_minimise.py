"""The spine of every loss that is not per head: one scalar, or several players on their own leaves."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import masks, tree
from mmfuse.core import Batch, Clock, Method, Outputs, Phase, PyTree, State, label_weight, used
from mmfuse.train import _update
from mmfuse.train._counted import counted
from mmfuse.train._optimizer import unsearched
from mmfuse.train._owned import Owns, graft, owned, path_of


class Aux(NamedTuple):
  """What a loss hands on beside its value."""

  stats: PyTree = None  # the batch statistics after the step; None = as they were
  memory: Mapping[str, PyTree] = {}  # entries of the memory that it replaces
  log: Mapping[str, jax.Array] = {}  # further scalars of the step's log


# (variables, batch, key, clock, memory) -> (loss [], Aux)
Loss = Callable[..., tuple[jax.Array, Aux]]


class Player(NamedTuple):
  """One of the updates of `alternate`."""

  owns: Owns  # of the path of a leaf, "decoders/audio/kernel": the leaves it moves
  loss: Loss  # as in `minimise`, of all parameters
  tx: optax.GradientTransformation  # over the leaves it owns, and only those
  steps: int = 1  # updates in a step, each on the same batch
  searched: bool = True  # False: it keeps its rate under `fit(learning_rate=)`


def minimise(
  init: Callable[..., tuple[dict[str, PyTree], dict[str, PyTree]]],
  loss: Loss,
  tx: optax.GradientTransformation,
  *,
  predict: Callable[..., Outputs],
  name: str = "train",
  metric: Any = None,
  select: str | None = None,
  share: float = 1.0,
) -> Method:
  """A `Method` that follows the gradient of one scalar: an ELBO, a contrastive loss, a reconstruction.

  theta <- theta + tx(d loss / d theta), every parameter by one optimiser; `alternate` is this with several.

  Everything gets a batch in which rows of weight 0 have no modality, what a step drops (`Batch.keep`) is
  absent, absent inputs are zero and unknown labels read 0. An encoder whose modality no row of a batch
  has is not moved, nothing is where no row counts. `variables` is {"params": ..., "batch_stats": ...}. A
  loss that reads labels weighs them with `core.label_weight(batch)`.

  Args:
    init: `(key, batch, num_rows) -> (variables, memory {name: ...})`, memory {} for none.
    loss: `(variables, batch, key, clock, memory) -> (scalar, Aux)`; it is given the memory of the whole
      state, other hooks' entries included, and returns the entries that it changes.
    tx: any Optax transform; it is given `value`, `losses` [1], `label`, `weight`, `mask`, `owners`,
      `key`, `clock`, no scores of modalities.
    predict: `(variables, memory, inputs, mask) -> Outputs`, absent inputs zero (compared by value).
    name: of the phase and of its optimiser state; default "train".
    metric: what the phase is validated by; None = the task's. A method without logits needs one of
      its own (`metrics.row_mean("elbo")`) or select=core.LAST.
    select: the score that its epochs are judged by; None = `fit`'s.
    share: of the epoch budget, as in `core.Phase`; default 1.

  Raises:
    ValueError: (in the first step) memory that `init` did not make.
  """
  steps = _Steps(((None, Player(_everything, loss, tx)),), name)
  return _method(init, steps, predict, metric, select, share)


def alternate(
  players: Mapping[str, Player],
  init: Callable[..., tuple[dict[str, PyTree], dict[str, PyTree]]],
  *,
  predict: Callable[..., Outputs],
  name: str = "train",
  metric: Any = None,
  select: str | None = None,
  share: float = 1.0,
) -> Method:
  """`minimise` with several updates in one step, one after the other: critics, discriminators.

  What is said there of batches, losses and memory holds for each of them. A player moves the leaves that
  it owns, by its own loss and optimiser; it sees what those before it have moved. A leaf of two players
  is moved by both, one of none stays. The log has "loss/<player>", of its last update, and what its
  `Aux` logs; later players overwrite equal names.

  Args:
    players: {name: `Player`}, in the order of their turns.
    init, predict, name, metric, select, share: as in `minimise`, defaults too.

  Raises:
    ValueError: no player, steps < 1; at `init` a player that owns no leaf; else as `minimise`.
  """
  if not players:
    raise ValueError("alternate needs at least one player, got none")
  for who, player in players.items():
    if player.steps < 1:
      raise ValueError(f"steps of player {who!r} must be at least 1, got {player.steps}")
  return _method(init, _Steps(tuple(players.items()), name), predict, metric, select, share)


def _method(init, steps: "_Steps", predict, metric, select, share: float) -> Method:
  def begin(key: jax.Array, batch: Batch, num_rows: int) -> State:
    batch = counted(tuple(sorted(batch.mask)), batch)
    variables, memory = init(key, batch, num_rows)
    return steps.open(variables["params"], variables.get("batch_stats", {}), memory, batch)

  phase = Phase(steps.name, steps, metric=metric, select=select, share=share)
  return Method(begin, _Predict(predict), (phase,))


def _everything(path: str) -> bool:
  del path
  return True


def variables_of(state: State) -> dict[str, PyTree]:
  """{"params", "batch_stats"} of a state, as models have them."""
  return {"params": state.params, "batch_stats": state.stats}


@dataclasses.dataclass(frozen=True)
class _Predict:
  """`Method.predict`. Equal for equal functions, so that methods share compiled evaluations."""

  function: Callable[..., Outputs]

  def __call__(self, state: State, inputs: dict, mask: dict) -> Outputs:
    inputs = masks.fill({m: inputs[m] for m in sorted(mask)}, mask)
    return self.function(variables_of(state), state.memory, inputs, mask)


class _Steps:
  """`Phase.step`: the players' turns on one batch. A player without a name is the only one."""

  def __init__(self, players: tuple[tuple[str | None, Player], ...], name: str):
    self.name = name
    self.players = tuple(
      (who, p._replace(tx=optax.with_extra_args_support(p.tx if p.searched else unsearched(p.tx))))
      for who, p in players
    )

  def open(self, params, stats, memory, batch: Batch) -> State:
    """The state before the first step."""
    opt = {}
    for who, player in self.players:
      mine = owned(params, player.owns)
      if not jax.tree.leaves(mine):
        known = ", ".join(_paths(params))
        raise ValueError(f"player {who!r} owns no leaf of the parameters; there are: {known}")
      opt[who] = _update.init_opt(player.tx, mine, sorted(batch.mask))
    return State(params, stats, {self.name: opt.get(None, opt)}, dict(memory))

  def __call__(self, state: State, batch: Batch, key: jax.Array, clock: Clock):
    batch = used(counted(tuple(sorted(batch.mask)), batch))
    opt = state.opt[self.name]
    opt = {None: opt} if self.players[0][0] is None else dict(opt)
    log: dict[str, jax.Array] = {}
    squares, finite = jnp.zeros((), jnp.float32), jnp.array(True)
    keys = iter(self._keys(key))
    for who, player in self.players:
      for _ in range(player.steps):
        state, opt[who], found = self._turn(player, state, opt[who], batch, next(keys), clock)
        finite &= found.pop("finite")
        norm = found.pop("gradient_norm")
        log |= {_logged(k, who): v for k, v in found.items()}
      squares += jnp.square(norm)
    log |= {
      "gradient_norm": norm if len(self.players) == 1 else jnp.sqrt(squares),
      "finite": finite,
    }
    return state._replace(opt={**state.opt, self.name: opt.get(None, opt)}), log

  def _keys(self, key: jax.Array) -> jax.Array:
    """[turns, 2], of the loss and of the optimiser; all at once, as XLA makes a loop of each draw."""
    turns = [(place, turn) for place, (_, p) in enumerate(self.players) for turn in range(p.steps)]
    places = jnp.asarray(turns, jnp.uint32)
    own = lambda at: jax.random.fold_in(jax.random.fold_in(key, at[0]), at[1])
    return jax.vmap(lambda at: jax.random.split(own(at)))(places)

  def _turn(self, player: Player, state: State, opt, batch: Batch, keys: jax.Array, clock: Clock):
    """One update, `keys` those of its loss and of its optimiser -> (state, its optimiser state, log)."""
    loss_key, rule_key = keys

    def loss(mine):
      variables = {"params": graft(state.params, mine), "batch_stats": state.stats}
      value, aux = player.loss(variables, batch, loss_key, clock, state.memory)
      return value.astype(jnp.float32), aux

    mine = owned(state.params, player.owns)
    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(mine)
    unknown = sorted(set(aux.memory) - set(state.memory))
    if unknown:
      made = ", ".join(sorted(state.memory)) or "nothing"
      raise ValueError(f"the loss returns memory {unknown[0]!r}; init made: {made}")
    owners = tree.owners_of(mine, sorted(batch.mask))
    context = {
      "value": value,
      "losses": value[None],
      "label": batch.label,
      "weight": label_weight(batch),
      "mask": batch.mask,
      "owners": owners,
      "key": rule_key,
      "clock": clock,
    }
    present = _update.present_in(batch.mask, batch.weight > 0)
    mine, opt = _update.move(player.tx, grads, opt, mine, owners, present, context)
    stats = state.stats if aux.stats is None else aux.stats
    new = State(graft(state.params, mine), stats, state.opt, {**state.memory, **dict(aux.memory)})
    return new, opt, _update.guarded({"loss": value, **dict(aux.log)}, value, grads)


def _logged(entry: str, who: str | None) -> str:
  return f"loss/{who}" if entry == "loss" and who is not None else entry


def _paths(params) -> list[str]:
  return [path_of(p) for p, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
