"""A split that comes with the data: its names, groups it cuts, validation rows it does not have."""

from collections.abc import Callable

import numpy as np

from mmfuse.data._error import DataError
from mmfuse.data._splitting import FURTHER, PARTS, SPLITS

CARVED = 0.2  # share of the training rows that validate where the column has no validation rows
_NAMES = {
  **{name: name for name in PARTS},
  "training": "train",
  **dict.fromkeys(("val", "valid", "dev", "development"), "validation"),
  "testing": "test",
}


def read_split(x: np.ndarray) -> tuple[np.ndarray, list[str]]:
  """str `[N]` of `PARTS` from names or from 0, 1, 2, and a note on names other than ours.

  Letter case and blanks around a name do not count; `val`, `valid`, `dev` and `development` are
  validation, `training` is train and `testing` is test. Raises DataError for anything else, with
  its first row.
  """
  if x.dtype.kind in "iu":
    wrong = ~np.isin(x, (0, 1, 2))
    names = np.asarray(SPLITS)[np.where(wrong, 0, x)]
    return _checked(x, wrong, names), []
  if x.dtype.kind != "U":
    return _checked(x, np.ones(len(x), bool), x), []
  given, at = np.unique(x, return_inverse=True)
  said = [str(name).strip().lower() for name in given]
  ours = np.asarray([_NAMES.get(name, "") for name in said])
  names = _checked(x, (ours == "")[at], ours[at])
  other = dict.fromkeys(name for name in said if name not in PARTS)
  read = ", ".join(f"{name!r} as {_NAMES[name]}" for name in other)
  return names, [f"the split column was read with {read}"] if other else []


def _checked(x: np.ndarray, wrong: np.ndarray, names: np.ndarray) -> np.ndarray:
  if wrong.any():
    row = int(np.argmax(wrong))
    raise DataError(
      "split must be train, validation (val, valid, dev, development), test, "
      f"{', '.join(FURTHER[:-1])} or {FURTHER[-1]}, or 0, 1 or 2, "
      f"got {x[row].item()!r} at row {row}"
    )
  return names


def complete(
  parts: np.ndarray,
  group: np.ndarray | None,
  allow_straddling: bool,
  draw: Callable[[np.ndarray, tuple[float, float]], np.ndarray],
  how: str,
) -> tuple[np.ndarray, list[str]]:
  """The data's own split, with validation rows where it has none, and what was chosen, in words.

  Args:
    parts: int `[N]` into `PARTS`.
    group: `[N]`, or None without groups.
    allow_straddling: take a split with groups in several parts as it is.
    draw: (rows, two shares) -> the part of each row, 0 or 1.
    how: `draw` in words.

  Raises DataError for groups in several parts, and for a part without rows.
  """
  said = [] if group is None else _check_groups(parts, group, allow_straddling)
  train = np.flatnonzero(parts == 0)
  if (parts == 1).any() or not (parts == 2).any() or len(train) < 2:
    check_parts(parts, given=True)
    return parts, said
  if group is not None and len(np.unique(group[train])) < 2:
    raise DataError(
      "the validation split is empty and all training rows are of one group, which cannot be split: "
      "mark some rows as validation in the split column"
    )
  out = parts.copy()
  out[train] = draw(train, (1 - CARVED, CARVED))
  return out, [
    *said,
    f"the split column has no validation rows: {int((out == 1).sum())} of {len(train)} training "
    f"rows validate, {how}",
  ]


def _check_groups(parts: np.ndarray, group: np.ndarray, allow: bool) -> list[str]:
  """Groups with rows in several parts: a DataError, or a note where they are allowed."""
  names, first, of = np.unique(group, return_index=True, return_inverse=True)
  rows = np.zeros((len(names), len(PARTS)), int)
  np.add.at(rows, (of, parts), 1)
  cut = np.flatnonzero((rows > 0).sum(1) > 1)
  if not len(cut):
    return []
  g = cut[np.argmin(first[cut])]
  shown = [(name, n) for name, n in zip(PARTS, rows[g]) if name in SPLITS or n]
  where = ", ".join(f"{name} {n}" for name, n in shown)
  said = (
    f"{len(cut)} of {len(names)} groups stand in more than one part of the split column, the first "
    f"is {names[g].item()!r} ({where} rows)"
  )
  if not allow:
    raise DataError(
      f"{said}; --allow-straddling (allow_straddling=True) takes the split as it is, --folds draws "
      "another one by group"
    )
  return [f"{said}: taken as it is, so scores may reward what is known of a group"]


def check_parts(parts: np.ndarray, given: bool) -> None:
  """Raises DataError where a part has no row; `given`: the data's own split, which can be mended."""
  rows = np.bincount(parts, minlength=len(SPLITS))[: len(SPLITS)]
  if rows.all():
    return
  name = SPLITS[np.argmin(rows)]
  sizes = ", ".join(f"{n} {r}" for n, r in zip(SPLITS, rows))
  remedy = (
    f"mark some rows as {name} in the split column, or leave the column out (60, 20 and 20 % of "
    "all rows are drawn then), or use --folds 5 (every row tests once)"
    if given
    else "three parts need at least three rows"
  )
  raise DataError(f"the {name} split is empty: {sizes} rows; {remedy}")
