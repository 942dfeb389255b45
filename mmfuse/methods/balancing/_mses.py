"""MSES: a modality whose validation loss no longer falls goes back to its best state and stops.

Fujimori et al.: "Modality-Specific Learning Rate Control for Multimodal
Classification", ACPR 2019. The rule stands in `balancing/_mses.py`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.balancing import _mses
from mmfuse.core import Method, State
from mmfuse.methods.balancing._mslr import by_modality, read_rule, write_rule
from mmfuse.tree import HEADS


def mses(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  initial: Mapping[str, float] | None = None,
  patience: int = 10,
  smoothing: float = 0.6,
) -> Method:
  """The joint loss; encoder and head of m stop, at their best, when its own loss stops falling.

  The loss is that of the uni-modal head on the validation rows that have m, after every epoch,
  smoothed as v <- .6 v + .4 loss.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    initial: {modality: factor} of the learning rate before that; default 1.
    patience: epochs without a new minimum, at least 1 (AGM repository: 10; 30 for UR-Funny).
      In a run of no more epochs nothing can stop.
    smoothing: weight of the old v, in [0, 1).

  Raises:
    ValueError: an impossible number.
    Unavailable: the data have no validation split.
  """
  if patience < 1:
    raise ValueError(f"patience must be at least 1, got {patience}")
  if not 0 <= smoothing < 1:
    raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")
  names = tuple(sorted(model.modalities))
  tx = optax.chain(tx, _mses.scale_by_mses(names, initial=initial))
  method = train.supervised(model, objectives.fused, tx)

  def begin(state: State, splits, key, clock) -> State:
    del key, clock
    train.validation_of(splits, "mses")
    return state

  def epoch_end(state: State, splits, key, clock) -> State:
    del key, clock
    losses = by_modality(method, state, splits["validation"], objectives.row_losses)
    rule, better, stops = mses_state(
      read_rule(state), losses, patience=patience, smoothing=smoothing
    )
    kept = dict(state.memory["mses"])
    for m in names:
      if better[m]:
        kept[m] = _part(state, m)
      if stops[m]:
        state = _put(state, m, kept[m])
    return write_rule(train.remember(state, mses=kept), rule)

  method = train.with_memory(
    method, lambda state, num_rows: {"mses": {m: _part(state, m) for m in names}}
  )
  phase = train.only_phase(method)
  return method._replace(phases=(phase._replace(begin=begin, epoch_end=epoch_end),))


def mses_state(
  state: _mses.MsesState, losses: Mapping[str, float], *, patience: int = 10, smoothing: float = 0.6
) -> tuple[_mses.MsesState, dict[str, jax.Array], dict[str, jax.Array]]:
  r"""v_m <- .6 v_m + .4 loss_m; a modality without a new minimum of v_m for `patience` epochs stops.

  A loss that is NaN (no row had the modality) changes nothing; a stopped modality stays so.

  Returns:
    The state; {modality: v_m is a new minimum: keep its parameters}; {modality: it stops now: put
    the kept ones back}, bool scalars.
  """
  new = _mses.MsesState({}, {}, {}, {}, {})
  better, stops = {}, {}
  for m, before in state.smoothed.items():
    now = jnp.asarray(losses[m], jnp.float32)
    known, running, first = jnp.isfinite(now), state.coefficients[m] > 0, state.epochs[m] == 0
    mixed = jnp.where(first, now, smoothing * before + (1 - smoothing) * now)
    better[m] = known & running & (first | (mixed < state.lowest[m]))
    new.smoothed[m] = jnp.where(known, mixed, before)
    new.lowest[m] = jnp.where(better[m], mixed, state.lowest[m])
    new.epochs[m] = state.epochs[m] + known.astype(jnp.int32)
    new.waited[m] = jnp.where(better[m], 0, state.waited[m] + known.astype(jnp.int32))
    stops[m] = running & (new.waited[m] >= patience)
    new.coefficients[m] = jnp.where(stops[m], 0.0, state.coefficients[m])
  return new, better, stops


def _part(state: State, modality: str) -> dict[str, Any]:
  """Copies of what modality m owns: its encoder, its head, its statistics."""
  part = {
    "encoder": state.params[modality],
    "stats": state.stats.get(modality, {}),
    "head": state.params.get(HEADS, {}).get(modality, {}),
  }
  return jax.tree.map(lambda x: x.copy(), part)


def _put(state: State, modality: str, part: Mapping[str, Any]) -> State:
  """`state` with that part put back."""
  params = {**state.params, modality: part["encoder"]}
  if modality in params.get(HEADS, {}):
    params[HEADS] = {**params[HEADS], modality: part["head"]}
  stats = {**state.stats, modality: part["stats"]} if modality in state.stats else state.stats
  return state._replace(params=params, stats=stats)
