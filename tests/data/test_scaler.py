import numpy as np
import pytest

from mmfuse.core import Sequence
from mmfuse.data import DataError, Scaler

ALL = np.arange(4)


def full(*names):
  return {m: np.ones(4, bool) for m in names}


def test_by_hand():
  x = np.array([[1, 5], [3, 5], [5, 5], [99, 99]], np.float32)
  scaler = Scaler.fit({"a": x}, full("a"), np.arange(3))  # row 3 is no training row
  np.testing.assert_allclose(scaler.mean["a"], [3, 5])
  np.testing.assert_allclose(scaler.std["a"], [np.sqrt(8 / 3), 1])  # a constant column: std 1
  out = scaler.apply({"a": x}, full("a"))["a"]
  np.testing.assert_allclose(out[:, 0], (x[:, 0] - 3) / np.sqrt(8 / 3), rtol=1e-6)
  np.testing.assert_allclose(out[:, 1], [0, 0, 0, 94])


def test_constant_column_with_rounding():
  x = np.full((10_000, 1), 0.1, np.float32)
  mask = {"a": np.ones(len(x), bool)}
  assert Scaler.fit({"a": x}, mask, np.arange(len(x))).std["a"] == 1


@pytest.mark.parametrize("shape", [(9000, 3), (9000, 4, 2), (4100, 2, 3, 2)])
def test_moments_are_those_of_numpy(shape):  # more rows than one chunk
  x = np.random.default_rng(0).normal(5, 3, shape).astype(np.float32)
  scaler = Scaler.fit({"a": x}, {"a": np.ones(len(x), bool)}, np.arange(len(x)))
  flat = x.reshape(-1, shape[-1]).astype(np.float64)
  np.testing.assert_allclose(scaler.mean["a"], flat.mean(0), rtol=1e-6)
  np.testing.assert_allclose(scaler.std["a"], flat.std(0), rtol=1e-6)


def test_absent_rows_are_neither_read_nor_filled():
  x = np.array([[1.0], [3.0], [np.nan], [5.0]], np.float32)
  mask = {"a": np.array([True, True, False, False])}
  scaler = Scaler.fit({"a": x}, mask, ALL)
  assert (scaler.mean["a"], scaler.std["a"]) == (2, 1)
  np.testing.assert_array_equal(scaler.apply({"a": x}, mask)["a"], [[-1], [1], [0], [0]])
  assert np.isnan(x[2, 0])  # the caller's array is left alone


def test_never_present_in_training():
  x = np.ones((4, 2), np.float32)
  scaler = Scaler.fit({"a": x}, {"a": np.zeros(4, bool)}, ALL)
  np.testing.assert_array_equal(scaler.apply({"a": x}, full("a"))["a"], x)


def test_tokens_pass_untouched():
  x = np.arange(8, dtype=np.int32).reshape(4, 2)
  scaler = Scaler.fit({"t": x}, full("t"), ALL)
  out = scaler.apply({"t": x}, {"t": np.array([True, True, True, False])})["t"]
  assert out.dtype == np.int32
  np.testing.assert_array_equal(out, [[0, 1], [2, 3], [4, 5], [0, 0]])


def test_json_is_exact():
  rng = np.random.default_rng(1)
  inputs = {"a": rng.normal(size=(4, 3)).astype(np.float32), "t": np.ones((4, 1), np.int32)}
  scaler = Scaler.fit(inputs, full("a", "t"), ALL)
  back = Scaler.from_json(scaler.to_json())
  assert back.modalities == ("a", "t") and back.std["a"].dtype == np.float64
  for m, x in scaler.apply(inputs, full("a", "t")).items():
    np.testing.assert_array_equal(back.apply(inputs, full("a", "t"))[m], x)


def test_other_data_is_refused():
  scaler = Scaler.fit({"audio": np.ones((4, 3), np.float32)}, full("audio"), ALL)
  with pytest.raises(DataError, match=r"'adio' was not in the training data; closest: audio"):
    scaler.apply({"adio": np.ones((4, 3), np.float32)}, full("adio"))
  huge = np.ones((4, 3), np.float32)
  huge[2] = 3e38
  small = Scaler({"audio": huge[0]}, {"audio": huge[0] / 1000}, ("audio",))
  with pytest.raises(DataError, match=r"'audio' is too large .* first at row 2"):
    small.apply({"audio": huge}, full("audio"))
  with pytest.raises(DataError, match="'audio' has 2 channels, the training data had 3"):
    scaler.apply({"audio": np.ones((4, 2), np.float32)}, full("audio"))


def test_a_small_signal_on_a_large_offset():
  signal = np.arange(4.0)[:, None]
  plain, offset = ({"a": signal + shift} for shift in (0, 1.7e9))
  scaled = [Scaler.fit(x, full("a"), ALL).apply(x, full("a"))["a"] for x in (plain, offset)]
  assert scaled[1].dtype == np.float32
  np.testing.assert_allclose(scaled[1][:, 0], (np.arange(4) - 1.5) / np.sqrt(1.25), rtol=1e-6)
  np.testing.assert_allclose(*scaled, rtol=1e-6)
  constant = {"a": np.full((4, 1), 0.1) + 1.7e9}
  assert Scaler.fit(constant, full("a"), ALL).std["a"] == 1


def test_what_fits_once_standardised_is_no_overflow():
  x = {"a": np.array([[1e60], [2e60], [3e60], [2e60]])}
  np.testing.assert_allclose(
    Scaler.fit(x, full("a"), ALL).apply(x, full("a"))["a"][:, 0],
    np.array([-1, 0, 1, 0]) * 2**0.5,
    rtol=1e-6,
  )
  x = {"a": np.array([[3.3e38], [-1e38], [-1e38], [-1e38]], np.float32)}  # x - mean overflows
  np.testing.assert_allclose(
    Scaler.fit(x, full("a"), ALL).apply(x, full("a"))["a"][:, 0],
    np.array([3, -1, -1, -1]) / 3**0.5,
    rtol=1e-6,
  )


def test_float32_is_standardised_in_float32():
  x = np.random.default_rng(0).normal(3, 2, (4, 5)).astype(np.float32)
  scaler = Scaler.fit({"a": x}, full("a"), ALL)
  by_hand = (x - scaler.mean["a"].astype(np.float32)) / scaler.std["a"].astype(np.float32)
  np.testing.assert_array_equal(scaler.apply({"a": x}, full("a"))["a"], by_hand)


def test_json_of_float32_is_read():
  old = '{"modalities": ["a"], "mean": {"a": [1.5]}, "std": {"a": [0.10000000149011612]}}'
  scaler = Scaler.from_json(old)
  np.testing.assert_allclose(
    scaler.apply({"a": np.full((4, 1), 1.6)}, full("a"))["a"], 1, rtol=1e-6
  )


def test_sequence_by_hand():
  values = np.array([[1.0, 3, 99], [5, 99, 99], [7, 7, 7], [99, 99, 99]])[..., None]
  x = {"a": Sequence(values, np.array([2, 1, 3, 3], np.int32))}
  mask = {"a": np.array([True, True, True, False])}
  scaler = Scaler.fit(x, mask, np.arange(2))  # 1, 3 and 5
  np.testing.assert_allclose([scaler.mean["a"][0], scaler.std["a"][0]], [3, np.sqrt(8 / 3)])
  out = scaler.apply(x, mask)["a"]
  assert out.length.tolist() == [2, 1, 3, 0] and out.length.dtype == np.int32
  np.testing.assert_allclose(
    out.values[..., 0] * np.sqrt(8 / 3), [[-2, 0, 0], [2, 0, 0], [4, 4, 4], [0, 0, 0]], rtol=1e-6
  )
