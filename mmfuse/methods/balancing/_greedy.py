"""Balanced training against greedy learning: two modalities exchange, at times, only average gates.

Wu, Jastrzebski, Cho, Geras: "Characterizing and Overcoming the Greedy Nature of Learning in
Multi-modal Deep Neural Networks", ICML 2022. For two modalities that meet in an MMTM block.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import Method, State, Unavailable
from mmfuse.fusion import LateFusion
from mmfuse.fusion._mmtm import Mmtm
from mmfuse.tree import FUSED, HEADS


class SpeedState(NamedTuple):
  r"""\sum_t |g_t|^2 / |w_t|^2 so far."""

  main: dict[str, jax.Array]  # {modality: of its encoder}
  bypass: dict[str, jax.Array]  # {modality: of its excitation and the shared squeeze}


def greedy(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  alpha: float = 0.001,
  window: int = 5,
  start_epoch: int = 2,
) -> Method:
  r"""The joint loss; while speed_0 - speed_1 is off balance, `window` steps with an average gate.

  speed_m = log10(bypass_m / main_m) says how fast m's way through the exchange learns, relative to
  its encoder. If |speed_0 - speed_1| > alpha, the gate of the modality with the larger one is held
  at its running mean for `window` steps, in which it can learn from its own encoder alone. A free
  step follows before the next decision; free steps alone move the accumulators. Modality 0 is the
  first in sorted order.

  Args:
    model: `fusion.LateFusion` of two modalities with `fusion.Mmtm`.
    tx: the optimiser of all its parameters.
    alpha: >= 0, default .001 (BalanceBenchmark; the authors' configuration has .01).
    window: steps, at least 1; default 5 (both).
    start_epoch: the first epoch with windows, default 2 (authors); speeds are summed from the start.

  Raises:
    ValueError: an impossible number.
    Unavailable: another number of modalities, or another fusion.
  """
  if not alpha >= 0:
    raise ValueError(f"alpha must be at least 0, got {alpha}")
  if window < 1:
    raise ValueError(f"window must be at least 1, got {window}")
  names = tuple(sorted(model.modalities))
  if len(names) != 2:
    raise Unavailable(
      f"greedy compares the learning speeds of two modalities; this model has {len(names)}"
    )
  if not (isinstance(model, LateFusion) and isinstance(model.fusion, Mmtm)):
    raise Unavailable(
      "greedy acts on MMTM gates between the encoders: use --fusion mmtm, "
      "or LateFusion(..., fusion=fusion.Mmtm())"
    )
  tx = optax.chain(track_speed(names), tx)
  method = train.supervised(model, objectives.fused, tx)
  phase = train.only_phase(method)
  step = _CuratedStep(phase.step, names, alpha, window, start_epoch)
  method = train.with_memory(
    method,
    lambda state, num_rows: {
      "greedy": {"left": jnp.zeros((), jnp.int32), "speed": jnp.zeros((), jnp.float32)}
    },
  )
  return method._replace(phases=(phase._replace(step=step),))


def track_speed(modalities: tuple[str, ...]) -> optax.GradientTransformationExtraArgs:
  r"""Passes gradients on and adds |g|^2 / |w|^2 of each group of leaves to its accumulator.

  Groups: `main` of m is encoder m; `bypass` of m is MMTM's excitation of m and its squeeze. Norms
  are those of all leaves of a group together.
  """
  names = tuple(sorted(modalities))

  def init_fn(params):
    del params
    zero = lambda: {m: jnp.zeros((), jnp.float32) for m in names}
    return SpeedState(zero(), zero())

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    main, bypass = {}, {}
    for m in names:
      main[m] = state.main[m] + squared_ratio(updates[m], params[m])
      ways = [_bypass(tree, m) for tree in (updates, params)]
      bypass[m] = state.bypass[m] + squared_ratio(*ways)
    return updates, SpeedState(main, bypass)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _bypass(params, modality):
  block = params[HEADS][FUSED]
  return {k: block[k] for k in ("squeeze", f"excite_{modality}")}


def squared_ratio(updates: Any, params: Any) -> jax.Array:
  """|g|^2 / |w|^2 over all leaves, 0 where all parameters are 0."""
  squares = [optax.tree.norm(t, squared=True) for t in (updates, params)]
  return jnp.where(squares[1] > 0, squares[0] / jnp.where(squares[1] > 0, squares[1], 1.0), 0.0)


def speed_difference(state: SpeedState) -> jax.Array:
  """log10(bypass_0 / main_0) - log10(bypass_1 / main_1); 0 until all four have moved."""
  first, second = sorted(state.main)
  sums = jnp.stack(
    [state.bypass[first], state.main[first], state.bypass[second], state.main[second]]
  )
  moved = (sums > 0).all()
  logs = jnp.log10(jnp.where(moved, sums, 1.0))
  return jnp.where(moved, logs[0] - logs[1] - (logs[2] - logs[3]), 0.0)


@dataclasses.dataclass(frozen=True)
class _CuratedStep:
  """The supervised step, and after it the decision which gate the next one holds."""

  step: Any
  modalities: tuple[str, ...]
  alpha: float
  window: int
  start_epoch: int

  def __call__(self, state: State, batch, key, clock):
    held, left, before = held_gates(state), state.memory["greedy"]["left"], _speeds(state)
    inside = left > 0
    state, log = self.step(state, batch, key, clock)
    speeds = jax.tree.map(lambda a, b: jnp.where(inside, a, b), before, _speeds(state))
    state, speed = _with_speeds(state, speeds), speed_difference(speeds)
    # A window runs to its end, and a free step follows it.
    opens = ~inside & (jnp.abs(speed) > self.alpha) & (clock.epoch >= self.start_epoch)
    left = jnp.where(opens, self.window, jnp.maximum(left - 1, 0)).astype(jnp.int32)
    first, second = self.modalities
    chosen = {first: (speed > 0).astype(jnp.float32), second: (speed < 0).astype(jnp.float32)}
    held = {m: jnp.where(opens, chosen[m], jnp.where(left > 0, held[m], 0.0)) for m in held}
    state = train.remember(state, greedy={"left": left, "speed": speed})
    return hold_gates(state, held), {**log, "learning_speed_difference": speed}


def _speeds(state: State) -> SpeedState:
  return state.opt["train"]["tx"][0]


def _with_speeds(state: State, speeds: SpeedState) -> State:
  opt = state.opt["train"]
  return state._replace(opt={**state.opt, "train": {**opt, "tx": (speeds, *opt["tx"][1:])}})


def held_gates(state: State) -> dict[str, jax.Array]:
  """{modality: 1 where training holds its gate at the running mean}."""
  return state.stats[HEADS][FUSED]["running"]["held"]


def hold_gates(state: State, held: dict[str, jax.Array]) -> State:
  """`state` with those switches set."""
  heads = state.stats[HEADS]
  running = {**heads[FUSED]["running"], "held": held}
  fused = {**heads[FUSED], "running": running}
  return state._replace(stats={**state.stats, HEADS: {**heads, FUSED: fused}})
