"""Which rows train, validate and test: by group where there are groups, else stratified by label.

Every function is deterministic in its seed and returns an int array `[N]`, the part of each row.
"""

from collections.abc import Sequence

import numpy as np

from mmfuse.data._error import DataError

SPLITS = ("train", "validation", "test")  # what is drawn
OPEN = SPLITS[:2]  # what `fit` and a search may read
FURTHER = (
  "query",
  "database",
  "ood",
  "shifted",
)  # what only a split column gives, and folds leave alone
PARTS = (*SPLITS, *FURTHER)


def _apportion(size: int, ideal: np.ndarray, least: np.ndarray) -> np.ndarray:
  """Whole numbers that sum to `size`, at least `least`, otherwise as near `ideal` as they get."""
  counts = np.minimum(np.maximum(np.floor(ideal).astype(int) - 1, 0), size // len(ideal))
  counts = np.maximum(counts, least)
  for _ in range(size - int(counts.sum())):
    counts[np.argmax(ideal - counts)] += 1
  return counts


def _least(size: int, parts: int) -> np.ndarray:
  """One row for each part where there are enough; else train first, then test."""
  order = [0, parts - 1, *range(1, parts - 1)][: min(size, parts)]
  return np.isin(np.arange(parts), order).astype(int)


def by_class(strata: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
  """Stratified parts: every class in every part where its count allows.

  Args:
    strata: int `[N]`, the class of each row.
    fractions: share of each part, positive, summing to 1.
    seed: of the shuffle.

  Returns:
    int `[N]`, the part of each row. Rounding is carried from class to class, so that the parts of
    many small classes still have the sizes asked for; no part is empty where N allows.
  """
  rng, share = np.random.default_rng(seed), np.asarray(fractions, float)
  parts, carry = np.empty(len(strata), int), np.zeros(len(share))
  for c in np.unique(strata):
    rows = rng.permutation(np.flatnonzero(strata == c))
    ideal = share * len(rows) + carry
    counts = _apportion(len(rows), ideal, _least(len(rows), len(share)))
    carry = ideal - counts
    parts[rows] = np.repeat(np.arange(len(share)), counts)
  return _fill_empty(parts, len(share))


def _fill_empty(parts: np.ndarray, number: int) -> np.ndarray:
  """Classes of one row all go to part 0; a part that nobody reached takes a row of the largest."""
  for part in range(min(number, len(parts))):
    sizes = np.bincount(parts, minlength=number)
    if sizes[part] == 0:
      parts[np.flatnonzero(parts == np.argmax(sizes))[-1]] = part
  return parts


def stratified(strata: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
  """`by_class` for classes `[N]`, `by_labels` for labels `[N, L]`."""
  return (by_class if strata.ndim == 1 else by_labels)(strata, fractions, seed)


def folds_stratified(strata: np.ndarray, folds: int, seed: int) -> np.ndarray:
  """`folds_by_class` for classes `[N]`, `folds_by_labels` for labels `[N, L]`."""
  if folds > len(strata):
    raise DataError(f"folds={folds} is more than the {len(strata)} rows of the data")
  return (folds_by_class if strata.ndim == 1 else folds_by_labels)(strata, folds, seed)


def by_labels(labels: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
  """Parts that hold each of several labels alike, by iterative stratification.

  Args:
    labels: 0/1 `[N, L]`.
    fractions: share of each part, positive, summing to 1.
    seed: of the order of the rows.

  Returns:
    int `[N]`, the part of each row. Sizes are those of `fractions`, rounded; a label stands in every
    part where its count allows, else in the first, then in the last.

  Reference: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data", ECML PKDD
  2011.
  """
  share, size = np.asarray(fractions, float), len(labels)
  return _deal_labels(labels, _apportion(size, share * size, _least(size, len(share))), seed)


def folds_by_labels(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
  """`folds` parts that hold each label alike; their sizes differ by at most one row."""
  size = len(labels)
  return _deal_labels(labels, size // folds + (np.arange(folds) < size % folds), seed)


def _deal_labels(labels: np.ndarray, room: np.ndarray, seed: int) -> np.ndarray:
  """The rarest label first, each of its rows to the part with room `[P]` that needs it most."""
  positive = labels > 0
  order, parts = np.random.default_rng(seed).permutation(len(labels)), np.full(len(labels), -1)
  left, room = positive.sum(0), room.copy()
  need = np.outer(room / room.sum(), left)  # [P, L], rows of each label that a part should get
  has = np.zeros(need.shape, bool)
  while left.any():
    l = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
    for row in order[positive[order, l] & (parts[order] < 0)]:
      open_ = room > 0
      lacking = open_ & ~has[:, l]
      if left[l] <= lacking.sum():
        open_ = lacking  # the last rows of a label go where it is not yet
      # Rounded: what is equal on paper is a tie, which room decides, then the later part.
      p = max(np.flatnonzero(open_), key=lambda p: (need[p, l].round(9), room[p], p))
      parts[row] = p
      room[p] -= 1
      left -= positive[row]
      need[p] -= positive[row]
      has[p] |= positive[row]
  parts[order[parts[order] < 0]] = np.repeat(np.arange(len(room)), room)
  return parts


def _deal(sizes: np.ndarray, order: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Gives groups, in `order`, to the part that lacks most rows; no part stays empty."""
  owner, filled = np.empty(len(sizes), int), np.zeros(len(target))
  for i, g in enumerate(order):
    lack = target - filled
    empty = filled == 0
    if len(order) - i <= empty.sum():
      lack = np.where(empty, lack, -np.inf)
    owner[g] = np.argmax(lack)
    filled[owner[g]] += sizes[g]
  return owner


def by_group(group: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
  """Parts of whole groups, in a seeded order, each to the part that lacks most rows.

  Raises DataError where there are fewer groups than parts.
  """
  names, inverse, sizes = np.unique(group, return_inverse=True, return_counts=True)
  if len(names) < len(fractions):
    raise DataError(
      f"group has {len(names)} different values, a split by group needs at least {len(fractions)}"
    )
  order = np.random.default_rng(seed).permutation(len(names))
  return _deal(sizes, order, np.asarray(fractions) * len(group))[inverse]


def folds_by_group(group: np.ndarray, folds: int, seed: int) -> np.ndarray:
  """`folds` parts of whole groups, balanced by rows: large ones first, ties in seeded order."""
  names, inverse, sizes = np.unique(group, return_inverse=True, return_counts=True)
  if folds > len(names):
    raise DataError(f"folds={folds} is more than the {len(names)} groups of the data")
  shuffled = np.random.default_rng(seed).permutation(len(names))
  order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
  return _deal(sizes, order, np.full(folds, len(group) / folds))[inverse]


def folds_by_class(strata: np.ndarray, folds: int, seed: int) -> np.ndarray:
  """`folds` parts whose sizes, within each class and over all, differ by at most one row."""
  if folds > len(strata):
    raise DataError(f"folds={folds} is more than the {len(strata)} rows of the data")
  rng = np.random.default_rng(seed)
  rows = np.concatenate([rng.permutation(np.flatnonzero(strata == c)) for c in np.unique(strata)])
  parts = np.empty(len(strata), int)
  parts[rows] = np.arange(len(rows)) % folds  # dealt on from class to class
  return parts


def of_fold(parts: np.ndarray, fold: int, folds: int) -> np.ndarray:
  """int `[N]` into `SPLITS`: part `fold` tests, the next one validates, the rest train."""
  return np.where(parts == fold, 2, np.where(parts == (fold + 1) % folds, 1, 0))
