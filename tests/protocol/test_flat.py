"""Rows as columns of a linear model: counted, flattened and standardised by hand."""

import numpy as np

from mmfuse import core
from mmfuse.protocol import _flat

ALL = lambda n: np.ones(n, bool)


def columns_of(x, rows, *, mask=None, weight=None):
  """(columns, training rows in them) of one modality `a`."""
  rows = np.asarray(rows)
  mask = {"a": ALL(len(x[0] if isinstance(x, core.Sequence) else x)) if mask is None else mask}
  weight = np.ones(len(rows)) if weight is None else np.asarray(weight, float)
  columns, made = _flat.fit({"a": x}, mask, ("a",), rows, weight)
  np.testing.assert_array_equal(made, _flat.apply(columns, {"a": x}, mask, rows))
  return columns, made


def test_flattened_columns_have_mean_0_and_variance_1_in_training():
  x = np.float32([[[1, 5], [0, 5]], [[3, 5], [4, 5]], [[100, 6], [100, 6]]])
  columns, made = columns_of(x, [0, 1])
  # Columns (1, 3), (5, 5), (0, 4), (5, 5); what is constant in training says nothing of other rows.
  np.testing.assert_allclose(made, [[-1, 0, -1, 0], [1, 0, 1, 0]])
  other = _flat.apply(columns, {"a": x}, {"a": ALL(3)}, np.array([2]))
  np.testing.assert_allclose(other, [[98, 0, 49, 0]])


def test_tokens_are_counted_over_the_training_vocabulary():
  tokens = np.int32([[7, 2, 7], [2, 2, -1], [7, 9, 9]])  # -1 is padding
  np.testing.assert_array_equal(_flat.vocabulary_of(tokens, np.array([0, 1])), [2, 7])
  columns, made = columns_of(tokens, [0, 1])
  np.testing.assert_allclose(made, [[-1, 1], [1, -1]])  # counts (1, 2), (2, 0)
  unknown = _flat.apply(columns, {"a": tokens}, {"a": ALL(3)}, np.array([2]))
  np.testing.assert_allclose(unknown, [[-3, 0]])  # counts (0, 1): nine is no column
  assert columns_of(np.full((2, 1), -1, np.int32), [0, 1])[1].shape == (2, 0)


def test_a_sequence_is_zero_after_its_end_and_has_its_length_as_a_column():
  values = np.float32([[[2.0], [9.0]], [[4.0], [6.0]]])
  made = columns_of(core.Sequence(values, np.int32([1, 2])), [0, 1])[1]
  # Raw columns (2, 4), (0, 6), lengths (1, 2).
  np.testing.assert_allclose(made, [[-1, -1, -1], [1, 1, 1]])
  garbage = values.copy()
  garbage[0, 1] = np.nan
  again = columns_of(core.Sequence(garbage, np.int32([1, 2])), [0, 1])[1]
  np.testing.assert_array_equal(again, made)
  words = core.Sequence(np.int32([[3, 3], [3, 4]]), np.int32([1, 2]))
  np.testing.assert_allclose(columns_of(words, [0, 1])[1], [[0, -1, -1], [0, 1, 1]])


def test_absent_rows_are_the_mean_and_have_an_indicator():
  x = np.float32([[1], [3], [np.nan], [np.nan]])
  columns, made = columns_of(x, [0, 1, 2, 3], mask=np.array([True, True, False, False]))
  np.testing.assert_allclose(made, [[-1, 1], [1, 1], [0, -1], [0, -1]])
  assert columns.gaps == ("a",)
  whole = columns_of(x, [0, 1], mask=np.array([True, True, False, False]))
  assert whole[0].gaps == () and whole[1].shape == (2, 1)  # no training row lacks it
  nobody = columns_of(x, [2, 3], mask=np.array([True, True, False, False]))
  assert nobody[1].shape == (2, 0)


def test_a_weight_of_two_is_the_row_twice():
  x = np.float32([[0], [3]])
  weighed = columns_of(x, [0, 1], weight=[1, 2])
  np.testing.assert_allclose(weighed[0].mean, [2])  # (0 + 3 + 3) / 3
  np.testing.assert_allclose(1 / weighed[0].scale, [np.sqrt(2)])


def test_scores_are_columns_times_weights_whatever_the_chunks(monkeypatch):
  x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
  columns, made = columns_of(x, np.arange(7))
  weights = np.random.default_rng(1).normal(size=(6, 2))
  rows, mask = np.arange(7), {"a": ALL(7)}
  np.testing.assert_allclose(
    _flat.scores(columns, {"a": x}, mask, rows, weights), made @ weights, rtol=1e-6
  )
  monkeypatch.setattr(_flat, "_CELLS", 12)  # two rows at a time
  again = columns_of(x, np.arange(7))
  np.testing.assert_allclose(again[0].mean, columns.mean)
  np.testing.assert_allclose(
    _flat.scores(columns, {"a": x}, mask, rows, weights), made @ weights, rtol=1e-6
  )
