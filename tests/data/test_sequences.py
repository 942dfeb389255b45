import numpy as np
import pytest

from mmfuse.core import Sequence
from mmfuse.data import DataError, _inputs, from_arrays, read_inputs, table_from_arrays

STEPS = np.array([2, 3, 1, 3])  # of 3


def values(fill=0.0, tail=(2,), dtype=np.float64):
  """[4, 3, ...] counting up; `fill` after the end."""
  size = int(np.prod((12, *tail)))
  x = np.arange(1, size + 1).reshape(4, 3, *tail).astype(dtype)
  x[np.arange(3) >= STEPS[:, None]] = fill
  return x


def read(x, **more):
  inputs, mask, notes = _inputs.read_noted({"gait": x, **more}, ("gait",))
  return inputs["gait"], mask["gait"], notes


@pytest.mark.parametrize("tail", [(2,), (2, 2), (2, 2, 1)])
@pytest.mark.parametrize("garbage", [0, np.nan, np.inf, 1e300])
def test_lengths(tail, garbage):
  x, mask, notes = read(values(garbage, tail), length_gait=STEPS.astype(np.uint8))
  assert isinstance(x, Sequence) and x.length.dtype == np.int32 and mask.all() and not notes
  np.testing.assert_array_equal(x.length, STEPS)
  np.testing.assert_array_equal(x.values, values(0, tail))  # zeros after the end


@pytest.mark.parametrize("tail", [(2,), (2, 2)])
def test_trailing_nan_is_a_length(tail):
  x, _, notes = read(values(np.nan, tail, np.float32))
  np.testing.assert_array_equal(x.length, STEPS)
  np.testing.assert_array_equal(x.values, values(0, tail))
  assert notes == ["gait: trailing NaN read as the end of 2 of 4 sequences"]


def test_trailing_masked_steps_are_a_length():
  gone = np.broadcast_to((np.arange(3) >= STEPS[:, None])[..., None], (4, 3, 2))
  for dtype in (np.float64, np.int16):
    x, _, notes = read(np.ma.array(values(7, dtype=dtype), mask=gone))
    np.testing.assert_array_equal(x.length, STEPS)
    np.testing.assert_array_equal(x.values, values(0))
    assert notes == ["gait: trailing masked steps read as the end of 2 of 4 sequences"]
  gone = gone.copy()
  gone[0, 0] = True
  with pytest.raises(DataError, match="hides part of row 0"):
    read(np.ma.array(values(), mask=gone))


def test_plain_arrays_stay_plain():
  assert isinstance(read(np.ones((4, 3, 2)))[0], np.ndarray)
  assert isinstance(read(np.ones((4, 3, 2)), length_gait=[3] * 4)[0], Sequence)  # as it was said


def test_absent_rows_have_no_step():
  x, mask, notes = read(values(np.nan), mask_gait=[True, False, True, True])
  np.testing.assert_array_equal(x.length, [2, 0, 1, 3])
  assert not x.values[1].any() and mask.sum() == 3
  assert notes == ["gait: trailing NaN read as the end of 2 of 3 sequences"]
  x, *_ = read(values(), length_gait=[2, -5, 1, 3], mask_gait=[True, False, True, True])
  assert x.length[1] == 0  # never looked at


def test_bytes_with_a_length_are_no_image():
  x, *_ = read(values(dtype=np.uint8), length_gait=STEPS)
  np.testing.assert_array_equal(x.values, values())
  film, *_ = read(np.full((4, 3, 2, 2, 1), 51, np.uint8), length_gait=STEPS)
  np.testing.assert_allclose(film.values[0, :, 0, 0, 0], [0.2, 0.2, 0], rtol=1e-6)


@pytest.mark.parametrize(
  ("length", "message"),
  [
    ([2, 4, 1, 3], r"length_gait must be integers \[4\] from 1 to 3, .*, got 4 at row 1"),
    ([2, 3, -1, 3], "got -1 at row 2"),
    ([2, 3, 0, 3], "length_gait is 0 at row 2 .*pass mask_gait with False"),
    ([2.0, 3.0, 1.0, 3.0], r"got float64 \[4\]"),
    ([True] * 4, r"got bool \[4\]"),
    ([2, 3, 1], r"got int64 \[3\]"),
    ([[2], [3], [1], [3]], r"got int64 \[4, 1\]"),
    (np.ma.array([2, 3, 1, 3], mask=[0, 1, 0, 0]), "'length_gait' is masked at row 1"),
  ],
)
def test_bad_lengths(length, message):
  with pytest.raises(DataError, match=message):
    read(values(), length_gait=length)


def test_lengths_of_what_has_no_steps():
  with pytest.raises(DataError, match=r"length_gait gives lengths, but 'gait' is \[4, 2\]"):
    read(np.ones((4, 2)), length_gait=STEPS)
  with pytest.raises(DataError, match=r"length_gait gives lengths, but 'gait' is \[4, 2\]"):
    read_inputs(
      {"gait": np.ones((4, 2), int), "length_gait": STEPS},
      ("gait",),
      encoders={"gait": "embedding"},
    )
  with pytest.raises(DataError, match="length_gate belongs to no modality; closest: gait"):
    read(values(), length_gate=STEPS)


def test_nan_elsewhere_is_refused():
  x = values(np.nan)
  x[3, 0] = np.nan  # a whole step, but not the last
  with pytest.raises(DataError, match=r"'gait' has NaN .*at row 3 \(1 rows in all\)"):
    read(x)
  x = values(np.nan)
  x[1, 2, 0] = np.nan  # half of the last step
  with pytest.raises(DataError, match=r"'gait' has NaN .*at row 1"):
    read(x)
  x = values(np.nan)
  x[1] = np.nan
  with pytest.raises(
    DataError, match=r"'gait' has nothing but NaN at row 1 .*mask_gait with False"
  ):
    read(x)
  with pytest.raises(DataError, match=r"'gait' has NaN .*at row 0"):
    read(values(np.nan)[:, :, 0])  # rank 2 has no steps
  x = values()
  x[0, 1] = np.nan
  with pytest.raises(DataError, match=r"'gait' has NaN .*at row 0"):
    read(x, length_gait=STEPS)


def test_as_the_model_was_trained():
  arrays = {"gait": np.ones((4, 3, 2))}
  ask = lambda lengths, **more: read_inputs({**arrays, **more}, ("gait",), lengths=lengths)[0][
    "gait"
  ]
  x = ask(("gait",))
  assert isinstance(x, Sequence) and x.length.tolist() == [3] * 4
  x = ask(("gait",), mask_gait=[True, True, True, False])
  assert x.length.tolist() == [3, 3, 3, 0]
  assert ask(("gait",), length_gait=STEPS).length.tolist() == STEPS.tolist()
  assert isinstance(ask(()), np.ndarray) and isinstance(ask((), length_gait=[3] * 4), np.ndarray)
  with pytest.raises(DataError, match="'gait' ends after 2 of 3 steps at row 0, in the training"):
    ask((), length_gait=STEPS)
  with pytest.raises(DataError, match="'gait' ends after 2 of 3 steps at row 0"):
    read_inputs({"gait": values(np.nan)}, ("gait",), lengths=())


def long(rows=30, fill=0.0):
  """Rows of up to 6 steps around 5 with standard deviation 2, and their lengths."""
  rng = np.random.default_rng(0)
  length = rng.integers(1, 7, rows)
  x = rng.normal(5, 2, (rows, 6, 2))
  x[np.arange(6) >= length[:, None]] = fill
  return {"gait": x, "length_gait": length, "label": np.arange(rows) % 2}


def test_moments_are_those_of_the_valid_steps():
  splits = from_arrays(long(fill=np.nan))
  train = splits.train.inputs["gait"]
  valid = np.arange(6) < train.length[:, None]
  assert train.values.dtype == np.float32
  np.testing.assert_allclose(train.values[valid].mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(train.values[valid].std(0), 1, atol=1e-6)
  for part in (splits.train, splits.validation, splits.test):
    x = part.inputs["gait"]
    assert not x.values[np.arange(6) >= x.length[:, None]].any()
    np.testing.assert_array_equal(x.length, long()["length_gait"][part.index])


def test_the_two_ways_to_say_a_length_are_one():
  said, shown = long(), long(fill=np.nan)
  del shown["length_gait"]
  a, b = from_arrays(said), from_arrays(shown)
  assert a.fingerprint == b.fingerprint
  np.testing.assert_array_equal(a.test.inputs["gait"].values, b.test.inputs["gait"].values)
  assert b.notes[0].startswith("gait: trailing NaN read as the end of ")


def test_lengths_are_part_of_the_fingerprint():
  arrays = long()
  arrays["gait"][:] = 0
  one = table_from_arrays(arrays).fingerprint
  arrays["length_gait"] = arrays["length_gait"] % 6 + 1
  assert table_from_arrays(arrays).fingerprint != one


def test_dropped_rows_and_lengths():
  arrays = long()
  arrays["mask_gait"] = np.arange(30) != 4
  table = table_from_arrays(arrays, drop_empty=True)
  np.testing.assert_array_equal(table.inputs["gait"].length, np.delete(arrays["length_gait"], 4))
