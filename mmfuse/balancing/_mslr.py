"""MSLR: a learning rate per modality that follows its validation accuracy. Modulator.

Yao, Mihalcea: "Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion",
Findings of ACL 2022; the constants are those of the AGM repository. The accuracies come from
the method `mslr`, between epochs.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

WINDOW = 5  # epochs of the mean


class MslrState(NamedTuple):
  """Factors of the learning rates, and the accuracies they follow."""

  coefficients: dict[str, jax.Array]  # {modality: scalar >= 0}, constant within an epoch
  recent: dict[str, jax.Array]  # {modality: [W]}, its last accuracies, newest last
  known: dict[str, jax.Array]  # {modality: int32, how many of these there are}


def initial_rates(
  modalities: Iterable[str], initial: Mapping[str, float] | None
) -> dict[str, jax.Array]:
  """{modality: factor > 0}, 1 where `initial` says nothing; ValueError for a name or number."""
  names, given = sorted(modalities), dict(initial or {})
  unknown = sorted(set(given) - set(names))
  if unknown:
    raise ValueError(f"modality {unknown[0]!r} not in the model; available: {', '.join(names)}")
  for m, value in given.items():
    if not 0 < value < float("inf"):
      raise ValueError(f"the initial factor of {m!r} must be positive and finite, got {value}")
  return {m: jnp.full((), given.get(m, 1.0), jnp.float32) for m in names}


def scale_modalities(updates: Any, coefficients: Mapping[str, jax.Array]) -> Any:
  """Updates times the factor of their modality: encoder m, head m, and branch m of a sum fusion.

  A leaf belongs to the first modality in its path (as `m` or `branch_m`); others are left alone.
  """
  owners = {**{f"branch_{m}": m for m in coefficients}, **{m: m for m in coefficients}}

  def scale(path, u):
    for entry in path:
      name = str(getattr(entry, "key", getattr(entry, "name", "")))
      if name in owners:
        return u * coefficients[owners[name]].astype(u.dtype)
    return u

  return jax.tree_util.tree_map_with_path(scale, updates)


def scale_by_mslr(
  modalities: Iterable[str], *, initial: Mapping[str, float] | None = None, window: int = WINDOW
) -> optax.GradientTransformationExtraArgs:
  r"""u <- coefficient_m u for the leaves of encoder m and of its head; the last link of a chain.

  It stands behind the optimiser, where a factor of the update is one of the learning rate, also
  with momentum or Adam. The fused head, which has no modality, keeps its rate; under `fusion.Sum`
  its branches are scaled. The method `mslr` makes the next coefficients.

  Args:
    modalities: names.
    initial: {modality: factor} the accuracies act on (AGM repository: audio 1.3, visual .7 for
      AV-MNIST; .9, 1.1 for CREMA-D); default 1.
    window: accuracies in the mean, default 5.

  Raises:
    ValueError: an unknown modality, a factor or a window that is not positive.
  """
  if window < 1:
    raise ValueError(f"window must be at least 1, got {window}")
  rates = initial_rates(modalities, initial)

  def init_fn(params):
    del params
    return MslrState(
      {m: r.copy() for m, r in rates.items()},
      {m: jnp.zeros(window, jnp.float32) for m in rates},
      {m: jnp.zeros((), jnp.int32) for m in rates},
    )

  def update_fn(updates, state, params=None, **extra_args):
    del params, extra_args
    return scale_modalities(updates, state.coefficients), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
