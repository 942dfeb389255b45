"""Masks over modalities: True = present. Combinations, samplers, missing tables, application."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import draws

Mask = dict[str, jax.Array]
MOST_SUBSETS = 6  # modalities up to which all 2^M subsets are scored


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

  Args:
    key: of the draw.
    mask: {modality: bool [B]}.
    drop: in [0, 1].
  """
  names = sorted(mask)
  rows = mask[names[0]].shape[0]
  # Rows first: the draws of a row do not depend on how many there are.
  keep = draws.flat(jax.random.bernoulli, key, (rows, len(names)), p=1.0 - drop).T
  drawn = jnp.stack([mask[m] for m in names]) & keep
  drawn = jnp.where(drawn.any(0, keepdims=True), drawn, jnp.stack([mask[m] for m in names]))
  return dict(zip(names, drawn))


def sample_subset(key: jax.Array, mask: Mapping[str, jax.Array]) -> Mask:
  """Keeps, row by row, one of the non-empty subsets of what is present, all equally likely.

  A row of p present modalities draws u in 1..2^p - 1; its bits say which are kept. At most 30
  modalities may be present. A row without any stays as it is.
  """
  names = sorted(mask)
  present = jnp.stack([mask[m] for m in names])
  place = jnp.cumsum(present, 0) - 1  # of a modality among those that the row has
  drawn = jax.random.randint(key, present.shape[1:], 1, 2 ** present.sum(0))
  bits = (drawn[None] >> jnp.maximum(place, 0)) & 1
  return dict(zip(names, present & (bits == 1)))


EVEN = "even"  # the losses of a missing table are spread over all modalities


def losses(losers: Sequence[int], modalities: Sequence[str], kind: str = EVEN) -> dict[str, list]:
  """{modality: the rows that lose it}, of the rows `losers` in the order they were drawn.

  Args:
    losers: rows.
    modalities: names.
    kind: "even" (default): int(count / M) rows lose each modality, in the order given, but the
      last, which takes the rest (of two: int(count / 2) the first, the others the second); or the
      modality that all lose.

  Raises:
    ValueError: another kind.
  """
  names, rows = list(modalities), [int(r) for r in losers]
  if kind not in (EVEN, *names):
    raise ValueError(f"unknown kind {kind!r}; expected {EVEN} or one of: {', '.join(names)}")
  if kind in names:  # also of a modality that is called "even"
    return {m: rows if m == kind else [] for m in names}
  share = len(rows) // len(names)
  starts = [i * share for i in range(len(names))]
  return {m: rows[a:b] for m, a, b in zip(names, starts, [*starts[1:], len(rows)])}


def lose(rows: int, lost: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
  """{modality: bool [rows]}, True = present: everything but what `lost` {modality: rows} names."""
  table = {m: np.ones(rows, bool) for m in lost}
  for m, losers in lost.items():
    table[m][np.asarray(losers, int)] = False
  return table


def missing_table(
  seed: int | Sequence[int], rows: int, rate: float, modalities: Sequence[str], kind: str = EVEN
) -> dict[str, np.ndarray]:
  """A fixed table of missing modalities: int(rows * rate) rows lose one each, none loses all.

  Drawn once and stored, as in the missing-rate protocol (Lee et al., "Multimodal Prompting with
  Missing Modalities", CVPR 2023): rows without replacement, then `losses` by `kind`.

  Args:
    seed: of the draw.
    rows: B.
    rate: share of the rows that lose one, in [0, 1].
    modalities: names.
    kind: as in `losses`, default "even".

  Returns {modality: bool [rows]}, True = present, modalities sorted.

  Raises:
    ValueError: a rate outside [0, 1], one modality, an unknown kind.
  """
  if not 0 <= rate <= 1:
    raise ValueError(f"rate must lie in [0, 1], got {rate}")
  names = sorted(modalities)
  if len(names) < 2 and rate > 0:
    raise ValueError("a missing table needs at least two modalities: no row may lose everything")
  losers = np.random.default_rng(seed).choice(rows, int(rows * rate), replace=False)
  return lose(rows, losses(losers.tolist(), names, kind))


def without(mask: Mapping[str, np.ndarray], table: Mapping[str, np.ndarray]) -> dict:
  """`mask` less what a missing table takes away; a row that would lose its last modality keeps it."""
  left = {m: mask[m] & table[m] for m in sorted(mask)}
  nothing = ~np.any([left[m] for m in left], axis=0)
  return {m: np.where(nothing, mask[m], v) for m, v in left.items()}


def fill(
  inputs: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], value: float = 0.0
) -> dict:
  """Replaces absent rows by `value` with a select, so that NaN in an absent row is never read.

  Args:
    inputs: {modality: pytree of [B, ...]}.
    mask: {modality: bool [B]}, True = present.
    value: default 0.
  """

  def select(x, present):
    shape = (-1,) + (1,) * (x.ndim - 1)
    return jnp.where(present.reshape(shape), x, jnp.asarray(value, x.dtype))

  return {m: jax.tree.map(lambda x, m=m: select(x, mask[m]), x) for m, x in inputs.items()}
