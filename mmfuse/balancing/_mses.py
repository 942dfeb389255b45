"""MSES: each modality stops learning when its own validation loss stops falling. Modulator.

Fujimori et al.: "Modality-Specific Learning Rate Control for Multimodal
Classification", ACPR 2019, as MSES in the AGM repository, whose constants stand here. The losses
come from `schemes.mses`, between epochs.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse.balancing._mslr import initial_rates, scale_modalities


class MsesState(NamedTuple):
  """Factors of the learning rates, and the smoothed losses that decide on them."""

  coefficients: dict[str, jax.Array]  # {modality: initial factor, or 0 once it has stopped}
  smoothed: dict[str, jax.Array]  # {modality: smoothed validation loss}
  lowest: dict[str, jax.Array]  # {modality: its minimum so far}
  epochs: dict[
    str, jax.Array
  ]  # {modality: int32, losses seen}; before the first the two above are 0
  waited: dict[str, jax.Array]  # {modality: int32, epochs since that minimum}


def mses_state(
  state: MsesState, losses: Mapping[str, float], *, patience: int = 10, smoothing: float = 0.6
) -> tuple[MsesState, dict[str, jax.Array], dict[str, jax.Array]]:
  """v_m <- .6 v_m + .4 loss_m; a modality without a new minimum of v_m for `patience` epochs stops.

  A loss that is NaN (no row had the modality) changes nothing; a stopped modality stays so.

  Args:
    state: that of the epoch before.
    losses: {modality: validation loss of its head, nats}.
    patience: epochs, default 10; constants of the AGM repository.
    smoothing: share of the old v_m, default .6.

  Returns:
    The state; {modality: v_m is a new minimum: keep its parameters}; {modality: it stops now: put
    the kept ones back}, bool scalars.
  """
  new = MsesState({}, {}, {}, {}, {})
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


def scale_by_mses(
  modalities: Iterable[str], *, initial: Mapping[str, float] | None = None
) -> optax.GradientTransformationExtraArgs:
  r"""u <- coefficient_m u as `scale_by_mslr`; coefficient_m is the initial factor, then 0.

  `mses_state` makes the next coefficients. Raises ValueError for an unknown modality or a factor
  that is not positive.
  """
  rates = initial_rates(modalities, initial)

  def init_fn(params):
    del params
    none = lambda dtype: {m: jnp.zeros((), dtype) for m in rates}
    return MsesState(
      {m: r.copy() for m, r in rates.items()},
      none(jnp.float32),
      none(jnp.float32),
      none(jnp.int32),
      none(jnp.int32),
    )

  def update_fn(updates, state, params=None, **extra_args):
    del params, extra_args
    return scale_modalities(updates, state.coefficients), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
