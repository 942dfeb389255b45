"""What a bound reads of a batch, and how a weight of it grows with time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.core import Clock

Explain = Callable[[jax.Array], jax.Array]  # z [..., B, L] -> log p(x_m | z) [..., B], rescaled


class Seen(NamedTuple):
  """A batch after its encoders; modalities in sorted order."""

  mu: jax.Array  # [M, B, L] of q_m(z | x_m): the location
  lv: jax.Array  # [M, B, L]: log variance, or the raw scale of another family
  present: jax.Array  # bool [M, B]
  weight: jax.Array  # [B] of the rows, 0 = padding
  explain: tuple[Explain, ...]  # of each modality
  joint: Any = None  # (mu, lv) [B, L] of the encoder of all of them
  private: Any = None  # (mu, lv) [M, B, P] of what m alone has
  shared: Any = None  # parameters of no modality: {"prior": raw scale [1, L]}, the refiner's
  cross: Any = None  # [M, 1, P]: raw scales of r_n, which stands in for w_n
  still: tuple[Explain, ...] = ()  # as `explain`, with constant parameters
  # [B, D_m] of each modality, flattened, where they are asked for
  inputs: tuple[jax.Array, ...] = ()

  @property
  def complete(self) -> jax.Array:
    """bool [B], rows that have all modalities."""
    return self.present.all(0)


def total(explain: tuple[Explain, ...], present: jax.Array, z: jax.Array) -> jax.Array:
  r"""\sum_m log p(x_m | z) over the modalities present: z [..., B, L] -> [..., B].

  Args:
    explain: log p(x_m | z) of each modality.
    present: bool [M, B].
    z: latents.
  """
  lead = (1,) * (z.ndim - 2)
  parts = [
    jnp.where(here.reshape(lead + here.shape), log_p(z), 0.0)
    for log_p, here in zip(explain, present, strict=True)
  ]
  return sum(parts[1:], parts[0])


def warmed(epoch: Any, ratio: Any, warmup: int, top: float = 1.0) -> jax.Array:
  """top * (epoch - 1 + ratio) / warmup before epoch `warmup`, then top: MVAE's beta_t.

  Args:
    epoch: counted from 1.
    ratio: share of the epoch that is done.
    warmup: epochs of growth; 0 for none.
    top: what it grows to, default 1.
  """
  if warmup <= 0:
    return jnp.asarray(top, jnp.float32)
  return top * jnp.where(epoch >= warmup, 1.0, (epoch - 1 + ratio) / warmup)


def warmed_by(clock: Clock, warmup: int, top: float = 1.0) -> jax.Array:
  """`warmed` at the step that a clock shows."""
  ratio = clock.batch / jnp.maximum(clock.batches, 1)
  return warmed(clock.epoch + 1, ratio, warmup, top)
