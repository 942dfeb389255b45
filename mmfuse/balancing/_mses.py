"""MSES: each modality stops learning when its own validation loss stops falling. Modulator.

Fujimori et al.: "Modality-Specific Learning Rate Control for Multimodal
Classification", ACPR 2019, as MSES in the AGM repository, whose constants stand here. The losses
come from the method `mses`, between epochs.
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


def scale_by_mses(
  modalities: Iterable[str], *, initial: Mapping[str, float] | None = None
) -> optax.GradientTransformationExtraArgs:
  r"""u <- coefficient_m u as `scale_by_mslr`; coefficient_m is the initial factor, then 0.

  The method `mses` makes the next coefficients. Raises ValueError for an unknown modality or a factor
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
