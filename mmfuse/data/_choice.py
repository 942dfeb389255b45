"""Which modalities of a data set are used: the user's choice before anything is read."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfuse.data import _fingerprint, _sequences
from mmfuse.data._error import DataError, closest
from mmfuse.data._inputs import MASK, candidates
from mmfuse.data._sequences import LENGTH
from mmfuse.data._table import Table


def left_out(
  names: Iterable[str], modalities: Iterable[str] | None, ignore: Iterable[str] | None
) -> list[str]:
  """The names, sorted, that `modalities` does not name or that `ignore` does.

  Raises:
    DataError: both are given, a name that is none of `names`, or nothing is left.
  """
  names = sorted(names)
  if modalities is not None and ignore is not None:
    raise DataError(
      "modalities and ignore (--modalities, --ignore) are two ways to say the same: "
      "expected one of them"
    )
  word, given = ("modalities", modalities) if ignore is None else ("ignore", ignore)
  if given is None:
    return []
  given = {given} if isinstance(given, str) else set(given)
  for name in sorted(given - set(names)):
    raise DataError(f"{word} names {name!r}, which is no modality{closest(name, names)}")
  out = [n for n in names if (n in given) == (word == "ignore")]
  if len(out) == len(names):
    raise DataError(f"{word} leaves no modality of {', '.join(names)}")
  return out


def _notes(out: list[str]) -> tuple[str, ...]:
  return (f"not used, as asked: {', '.join(out)}",) if out else ()


def used_arrays(
  arrays: Mapping[str, Any],
  label: str,
  modalities: Iterable[str] | None,
  ignore: Iterable[str] | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
  """(`arrays` without the modalities left out, their masks and lengths; notes)."""
  out = left_out(candidates(arrays, label), modalities, ignore)
  gone = {prefix + m for m in out for prefix in ("", MASK, LENGTH)}
  return {n: x for n, x in arrays.items() if n not in gone}, _notes(out)


def used_table(
  table: Table,
  modalities: Iterable[str] | None,
  ignore: Iterable[str] | None,
  drop_empty: bool = False,
) -> Table:
  """`table` with the chosen modalities, and the fingerprint of what is used."""
  out = left_out(table.inputs, modalities, ignore)
  if not out:
    return table
  inputs = {m: x for m, x in table.inputs.items() if m not in out}
  mask = {m: x for m, x in table.mask.items() if m not in out}
  keep, dropped = kept_rows(mask, drop_empty)
  cut: Any = lambda x: None if x is None else x[keep]
  inputs = {m: _sequences.take(x, keep) for m, x in inputs.items()}
  mask = {m: x[keep] for m, x in mask.items()}
  used = dataclasses.replace(
    table,
    inputs=inputs,
    mask=mask,
    label=cut(table.label),
    group=cut(table.group),
    split=cut(table.split),
    labelled=cut(table.labelled),
    weight=cut(table.weight),
    extra={n: x[keep] for n, x in table.extra.items()},
    truth={n: x[keep] for n, x in table.truth.items()},
    encoders={m: e for m, e in table.encoders.items() if m not in out},
    notes=(*table.notes, *_notes(out), *dropped),
  )
  return _fingerprint.stamped(used, table.name)


def kept_rows(
  mask: Mapping[str, np.ndarray], drop_empty: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Which rows have a modality at all, bool `[B]`, and the note about the others."""
  present = np.asarray(np.stack([mask[m] for m in sorted(mask)]).any(axis=0))
  empty = int((~present).sum())
  if empty == len(present):
    raise DataError(f"no row has a modality: the masks are False for all {empty} rows")
  if empty and not drop_empty:
    raise DataError(
      f"{empty} of {len(present)} rows have no modality present, the first is row "
      f"{int(np.argmin(present))}; drop_empty=True (--drop-empty) leaves them out"
    )
  if not empty:
    return present, ()
  return present, (f"{empty} {'row' if empty == 1 else 'rows'} without a modality dropped",)
