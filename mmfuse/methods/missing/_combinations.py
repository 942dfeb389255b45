"""Combinations of modalities as numbers: which one a row has, and a further loss of those that are hard.

A combination is its place in `masks.combinations` of the sorted modalities: 100, 010, 001, 110, 101, 011,
111. There are C = 2^M - 1.
"""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import masks, objectives


def combination_index(mask: Mapping[str, jax.Array]) -> jax.Array:
  """The combination int32 [B] that each row of a mask {m: bool [B]} has; C where it has nothing."""
  names = sorted(mask)
  place = np.full(2 ** len(names), 2 ** len(names) - 1, np.int32)
  for i, subset in enumerate(masks.combinations(names)):
    place[sum(1 << names.index(m) for m in subset)] = i
  code = sum((mask[m].astype(jnp.int32) << i for i, m in enumerate(names)), jnp.int32(0))
  return jnp.asarray(place)[code]


def chosen(subsets: Iterable[Sequence[str]], modalities: Sequence[str]) -> np.ndarray:
  """bool [C]: which combinations `subsets` names, in any order. Raises ValueError for another one."""
  every = [frozenset(c) for c in masks.combinations(sorted(modalities))]
  wanted = {frozenset(s) for s in subsets}
  for unknown in wanted - set(every):
    said = "+".join(sorted(unknown)) or "nothing"
    raise ValueError(f"no combination {said!r} of modalities; they are: {', '.join(modalities)}")
  return np.asarray([c in wanted for c in every])


def among(hard: jax.Array, index: jax.Array) -> jax.Array:
  """bool [B]: whether each row's combination is one of `hard` bool [C]; never of a row without any."""
  return jnp.append(hard, False)[index]


def hard_loss(
  losses: jax.Array, hard: jax.Array, weight: jax.Array, variant: str = "intended"
) -> jax.Array:
  r"""\sum_i w_i 1[i hard] l_i / \sum_i w_i: over all rows, so that it is the loss itself if all are hard.

  Args:
    losses: l [B], of each row.
    hard: bool [B].
    weight: w [B]; rows of weight 0 are neither read nor hard.
    variant: "intended" (default); "released": n mean_i l_i, n the number of hard rows and the mean over
      all of them, which the code of DMRNet and of MMANet computes, since [B] times [B, 1, 1, 1] has B^2
      entries. It is no loss of hard rows but a larger step.
  """
  if variant == "released":
    count = (hard & (weight > 0)).sum().astype(jnp.float32)
    return count * objectives.weighted_mean(losses, weight)
  return objectives.weighted_mean(jnp.where(hard, losses, 0.0), weight)


def unbalanced_counts(
  epoch: jax.Array,
  rows: int,
  num: int,
  hard: Sequence[int],
  easy: Sequence[int],
  *,
  start: int = 15,
  most: int = 7,
) -> jax.Array:
  """How many of `rows` get each of `num` combinations, int32 [..., num]: hard ones more and more.

  The rows are dealt evenly, the first combinations take the remainder; from epoch `start` on each
  hard one gains, and each easy one loses, a row an epoch, up to `most`. A sampler that DMRNet's
  code has and its commands do not use.

  Args:
    epoch: int [...].
    rows: of a batch.
    num: C.
    hard, easy: combinations.
    start, most: defaults 15 and 7 (authors, at 64 rows and 7 combinations).
  """
  even = np.full(num, rows // num) + (np.arange(num) < rows % num)
  sign = np.isin(np.arange(num), hard).astype(int) - np.isin(np.arange(num), easy).astype(int)
  shift = jnp.clip(jnp.asarray(epoch) - start, 0, most)[..., None]
  shape = (1,) * (shift.ndim - 1) + (num,)
  return (even.reshape(shape) + shift * sign.reshape(shape)).astype(jnp.int32)
