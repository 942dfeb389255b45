"""Masks over modalities: True = present. Combinations, samplers, missing tables, application."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

Mask = dict[str, jax.Array]


def combinations(modalities: Iterable[str]) -> list[tuple[str, ...]]:
  """All 2^M - 1 non-empty subsets, in the tables' order 100, 010, 001, 110, 101, 011, 111."""
  names = tuple(modalities)
  subsets = [c for c in product((True, False), repeat=len(names)) if any(c)]
  subsets.sort(key=sum)  # stable: within a size, earlier modalities first
  return [tuple(n for n, keep in zip(names, c) if keep) for c in subsets]


def every_subset(modalities: Iterable[str]) -> list[tuple[str, ...]]:
  """All 2^M subsets: the empty one, then those of `combinations`."""
  names = tuple(modalities)
  return [(), *combinations(names)]


def full(modalities: Iterable[str], batch_size: int) -> Mask:
  """Every modality of every row is present: {modality: [B] True}."""
  return {m: jnp.ones(batch_size, bool) for m in sorted(modalities)}


def only(mask: Mapping[str, jax.Array], present: Sequence[str]) -> Mask:
  """`mask` with every modality outside `present` switched off."""
  unknown = sorted(set(present) - set(mask))
  if unknown:
    raise ValueError(f"modality {unknown[0]!r} not in mask; available: {', '.join(sorted(mask))}")
  return {m: v if m in present else jnp.zeros_like(v) for m, v in mask.items()}


def sample_bernoulli(key: jax.Array, mask: Mapping[str, jax.Array], drop: float) -> Mask:
  """Drops each present modality with probability `drop`; a row never loses its last one.

  Rows that would lose everything keep what they had (the rejection of all-zero draws).
  """
  names = sorted(mask)
  keep = jax.random.bernoulli(key, 1.0 - drop, (len(names), mask[names[0]].shape[0]))
  drawn = jnp.stack([mask[m] for m in names]) & keep
  drawn = jnp.where(drawn.any(0, keepdims=True), drawn, jnp.stack([mask[m] for m in names]))
  return dict(zip(names, drawn))


def missing_table(
  seed: int, rows: int, rate: float, modalities: Sequence[str]
) -> dict[str, np.ndarray]:
  """A fixed table of missing modalities: int(rows * rate) rows lose one each, none loses all.

  Drawn once and stored, as in the missing-rate protocol; the lost modality is spread evenly.
  Returns {modality: bool [rows]}, True = present.
  """
  if not 0 <= rate <= 1:
    raise ValueError(f"rate must lie in [0, 1], got {rate}")
  names = sorted(modalities)
  if len(names) < 2 and rate > 0:
    raise ValueError("a missing table needs at least two modalities: no row may lose everything")
  generator = np.random.default_rng(seed)
  losers = generator.choice(rows, int(rows * rate), replace=False)
  table = {m: np.ones(rows, bool) for m in names}
  for i, row in enumerate(losers):
    table[names[i % len(names)]][row] = False
  return table


def fill(
  inputs: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], value: float = 0.0
) -> dict:
  """Replaces absent rows by `value` with a select, so that NaN in an absent row is never read."""

  def select(x, present):
    shape = (-1,) + (1,) * (x.ndim - 1)
    return jnp.where(present.reshape(shape), x, jnp.asarray(value, x.dtype))

  return {m: jax.tree.map(lambda x, m=m: select(x, mask[m]), x) for m, x in inputs.items()}
