"""A twin of a table with the same schema and random content, for smoke tests."""

import dataclasses
from typing import Any

import numpy as np

from mmfuse.data import _fingerprint, _sequences
from mmfuse.data._error import DataError
from mmfuse.data._table import Table

_PARTS = np.asarray(("train", "validation", "test", "train"))


def _inputs(x: Any, present: np.ndarray, here: np.ndarray, rng: np.random.Generator) -> Any:
  """Random rows like those of `x`, whose rows are there where `present`; 0 unless `here`."""
  values = _sequences.values_of(x)
  shape = (len(here), *values.shape[1:])
  if values.dtype.kind == "f":
    made = rng.normal(size=shape).astype(values.dtype)
  else:
    made = rng.integers(0, int(values.max()) + 1, shape).astype(np.int32)
  if not _sequences.is_sequence(x):
    return _sequences.cleared(made, here)
  known = x.length[present] if present.any() else np.arange(1, shape[1] + 1)
  length = np.where(here, rng.choice(known, len(here)), 0)
  return _sequences.sequence(
    _sequences.cleared(made, _sequences.valid_steps(length, shape[1])), length
  )


def _beside(x: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
  """Random rows of an array beside the modalities: its own values where they are no measurements."""
  shape = (rows, *x.shape[1:])
  if x.dtype.kind == "f":
    return rng.normal(size=shape).astype(x.dtype)
  return rng.choice(np.unique(x), shape).astype(x.dtype)


def _label(table: Table, part: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
  """By their form: those of a table to be generated or searched may be of several kinds, or none."""
  if table.label is None:
    return None
  shape = (len(part), *table.label.shape[1:])
  whole = table.label.dtype.kind == "i"
  if whole and table.label.ndim == 1:  # in turn within each part, so that training sees them all
    turn = np.empty(len(part), np.int32)
    for p in np.unique(part):
      turn[part == p] = np.arange((part == p).sum())
    return turn % np.int32(table.num_outputs)
  if whole and table.label.ndim > 2:  # classes of places, and void where there is some
    return rng.choice(np.unique(table.label), shape).astype(np.int32)
  if whole:
    return rng.integers(0, 2, shape).astype(np.int32)
  return rng.normal(size=shape)


def fake(table: Table, rows: int = 24, seed: int = 0) -> Table:
  """A table of `rows` random rows with the modalities, shapes, dtypes and task of `table`.

  Groups, a split column and absent modalities are there where `table` has them: at most as many
  groups as in `table`, each in one split; a modality that `table` lacks somewhere is absent from a
  few rows, and no row lacks all; so are lengths, unknown labels, weights and arrays beside the
  modalities. The name ends in `_fake`.

  Args:
    table: whose twin it is.
    rows: default 24.
    seed: of the content, default 0.

  Raises:
    DataError: fewer than 6 rows, which cannot be split.
  """
  if rows < 6:
    raise DataError(f"a fake table needs at least 6 rows, got {rows}")
  rng, number = np.random.default_rng(seed), np.arange(rows)
  group = None
  if table.group is not None:
    groups = min(len(np.unique(table.group)), max(4, rows // 2))
    group = number % groups
  unit = number if group is None else group
  split = None if table.split is None else _PARTS[unit % 4]
  mask = {m: np.ones(rows, bool) for m in sorted(table.mask)}
  if len(mask) > 1:
    for i, m in enumerate(mask):
      if not table.mask[m].all():
        mask[m] = number % (4 * len(mask)) // 4 != i if rows >= 8 else mask[m]
  inputs = {}
  for m, x in sorted(table.inputs.items()):
    inputs[m] = _inputs(x, table.mask[m], mask[m], rng)
  label = _label(table, np.zeros(rows) if split is None else split, rng)
  labelled = None if table.labelled is None else number % 7 < 5
  if labelled is not None and label is not None:
    label[~labelled] = 0
  weight = None if table.weight is None else rng.choice(table.weight[table.weight > 0], rows)
  made = dataclasses.replace(
    table,
    name=f"{table.name}_fake",
    inputs=inputs,
    label=label,
    mask=mask,
    group=group,
    split=split,
    notes=("random content in the shape of " + table.name,),
    labelled=labelled,
    weight=weight,
    extra={n: _beside(x, rows, rng) for n, x in sorted(table.extra.items())},
    truth={n: _beside(x, rows, rng) for n, x in sorted(table.truth.items())},
  )
  return _fingerprint.stamped(made, f"fake-1 {seed}")
