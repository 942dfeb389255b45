import ml_dtypes
import numpy as np
import pytest

from mmfuse import tree
from mmfuse.data import DataError, _inputs, read_inputs

ROWS = 4


def one(x, mask=None, **options):
  arrays = {"a": x} if mask is None else {"a": x, "mask_a": mask}
  inputs, present = read_inputs(arrays, ("a",), rows=ROWS, **options)
  return inputs["a"], present["a"]


@pytest.mark.parametrize(
  ("x", "shape"),
  [
    (np.arange(4), (4, 1)),
    (np.arange(4) > 1, (4, 1)),
    ([1, 2, 3, 4.5], (4, 1)),
    (np.ones((4, 3), np.float16), (4, 3)),
    (np.ones((4, 3), np.int64), (4, 3)),
    (np.ones((4, 3), np.uint8), (4, 3)),
    (np.ones((4, 5, 3), np.int16), (4, 5, 3)),
    (np.ones((4, 5, 5, 3, 1)), (4, 5, 5, 3, 1)),
  ],
)
def test_numbers_become_floats(x, shape):
  out, present = one(x)
  kept = np.asarray(x).dtype == np.float64  # cast once it is standardised
  assert out.dtype == (np.float64 if kept else np.float32)
  assert out.shape == shape and present.all()
  np.testing.assert_array_equal(out.ravel(), np.asarray(x).ravel())


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, ">i8", np.longdouble])
def test_what_float32_cannot_hold_stays_float64(dtype):
  x = np.array([2**24 + 1, 2**24 + 3, 7, 0]).astype(dtype)
  out, _ = one(x)
  assert out.dtype == np.float64
  np.testing.assert_array_equal(out[:, 0], [2**24 + 1, 2**24 + 3, 7, 0])
  assert one(-(x.astype(np.int64)))[0].dtype == np.float64
  assert one(np.array([2**24, -(2**24), 0, 1]))[0].dtype == np.float32
  assert one(x, [False, False, True, True])[0].max() == 7  # absent rows are never looked at


def test_bfloat16_is_cast(tmp_path):
  x = np.array([1.5, -2, 0.25, 3e38], ml_dtypes.bfloat16)
  np.testing.assert_array_equal(one(x)[0][:, 0], x.astype(np.float32))
  assert one(x)[0].dtype == np.float32
  assert one(x.astype(ml_dtypes.float8_e4m3fn)[:3].repeat(2)[:4])[0].dtype == np.float32
  np.savez(tmp_path / "x.npz", a=x)  # numpy writes the bytes and forgets the type
  arrays = dict(np.load(tmp_path / "x.npz"))
  inputs, _, notes = _inputs.read_noted(arrays, ("a",))
  np.testing.assert_array_equal(inputs["a"][:, 0], x.astype(np.float32))
  assert notes == ["a: raw two-byte values read as bfloat16"]


def test_hidden_rows_are_absent():
  x = np.ma.array([[1.0, 2], [9, 9], [3, 4], [5, 6]], mask=[[0, 0], [1, 1], [0, 0], [0, 0]])
  inputs, mask, notes = _inputs.read_noted({"a": x}, ("a",))
  np.testing.assert_array_equal(inputs["a"], [[1, 2], [0, 0], [3, 4], [5, 6]])
  assert mask["a"].tolist() == [True, False, True, True]
  assert notes == ["a: 1 of 4 rows are masked and read as absent"]
  _, mask = read_inputs({"a": x, "mask_a": [True, True, True, False]}, ("a",))
  assert mask["a"].tolist() == [True, False, True, False]
  _, present = one(np.ma.array([1, 2, 3, 4], mask=[1, 0, 0, 0]), encoders={"a": "embedding"})
  assert present.tolist() == [False, True, True, True]
  listed = [np.ma.array([1.0, 2.0], mask=[hidden] * 2) for hidden in (False, True, False, False)]
  assert one(listed)[1].tolist() == [True, False, True, True]
  assert one(np.ma.array([1, 2, 3, 4]))[1].all()  # hides nothing


@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 3), (4, 1, 2, 2)])
def test_a_row_hidden_in_part_is_refused(shape):
  hidden = np.zeros(shape, bool)
  hidden[2].flat[0] = True
  with pytest.raises(DataError, match=r"'a' is a masked array that hides part of row 2 \(1 rows"):
    one(np.ma.array(np.ones(shape), mask=hidden))
  present = np.array([True, True, False, True])
  assert one(np.ma.array(np.ones(shape), mask=hidden), present)[1].sum() == 3  # never looked at


def test_a_masked_mask_is_refused():
  with pytest.raises(DataError, match="array 'mask_a' is masked at row 1"):
    one(np.ones(4), np.ma.array([True] * 4, mask=[0, 1, 0, 0]))


@pytest.mark.parametrize(
  ("shape", "note"),
  [
    (
      (4, 3, 9, 8),
      r"a [4, 3, 9, 8]: three leading channels are read as height and the last axis "
      "as 8 channels; transpose(0, 2, 3, 1) puts channels last",
    ),
    (
      (4, 1, 28, 28),
      "a [4, 1, 28, 28]: one leading channel is read as height and the last axis "
      "as 28 channels; transpose(0, 2, 3, 1) puts channels last",
    ),
    (
      (4, 5, 3, 8, 8),
      "a [4, 5, 3, 8, 8]: three leading channels are read as height and the last "
      "axis as 8 channels; transpose(0, 1, 3, 4, 2) puts channels last",
    ),
    ((4, 8, 8, 3), None),
    ((4, 3, 8, 3), None),
    ((4, 8, 8, 9), None),
  ],
)
def test_leading_channels_are_said(shape, note):
  for dtype in (np.uint8, np.float32):
    notes = _inputs.read_noted({"a": np.ones(shape, dtype)}, ("a",))[2]
    assert notes == ([] if note is None else [note])


@pytest.mark.parametrize(
  ("shape", "out"), [((4, 2, 2), (4, 2, 2, 1)), ((4, 2, 2, 3), (4, 2, 2, 3))]
)
def test_images_are_scaled(shape, out):
  x, _ = one(np.full(shape, 51, np.uint8))
  assert x.shape == out
  np.testing.assert_allclose(x, 0.2, rtol=1e-6)


def test_embedding_reads_integers():
  x, _ = one(
    np.array([[1, 2], [0, 3], [4, 4], [-9, 2**40]]),
    [True, True, True, False],
    encoders={"a": "embedding"},
  )
  assert x.dtype == np.int32
  np.testing.assert_array_equal(x, [[1, 2], [0, 3], [4, 4], [0, 0]])
  assert one(np.arange(4), encoders={"a": "embedding"})[0].shape == (4, 1)

  class Embedding:  # a module instead of a spec
    pass

  assert one(np.arange(4), encoders={"a": Embedding()})[0].dtype == np.int32


def test_integers_stay_numeric_with_another_encoder():
  assert one(np.ones((4, 2), int), encoders={"a": "mlp"})[0].dtype == np.float32


def test_absent_rows_become_zero():
  x = np.array([[1.0], [np.nan], [np.inf], [2.0]])
  out, present = one(x, np.array([1, 0, 0, 1]))
  np.testing.assert_array_equal(out, [[1], [0], [0], [2]])
  np.testing.assert_array_equal(present, [True, False, False, True])
  assert np.isnan(x[1, 0])  # the caller's array is left alone


@pytest.mark.parametrize(
  ("x", "message"),
  [
    (np.ones((3, 2)), "array 'a' has 3 rows, 'label' has 4"),
    (np.array(["x", "y", "z", "w"]), "'a' holds strings, .*--encoder a=embedding"),
    (np.array([None] * 4), "array 'a' holds Python objects"),
    ([[1, 2], [3], [4], [5]], "array 'a' has rows of different shapes"),
    (np.ones(4, complex), "'a' has dtype complex128, expected numbers"),
    (np.zeros(4, "datetime64[s]"), "'a' has dtype datetime64"),
    (np.float32(1), "array 'a' is a single value"),
    (np.ones((4, 0)), r"'a' has shape \[4, 0\]: an axis is empty"),
    ([[1], [np.nan], [np.nan], [1]], r"'a' has NaN .* at row 1 \(2 rows in all\).*mask_a"),
    ([1, 2, 3, 1e300], r"infinite values, or values above 1e\+150, at row 3"),
    (np.array([2, 3, np.inf, 1], np.float32), "'a' has NaN or infinite values.* at row 2"),
    (np.zeros(4, [("x", "f4"), ("y", "f4")]), "'a' holds records with the fields x, y"),
  ],
)
def test_bad_modalities(x, message):
  with pytest.raises(DataError, match=message):
    one(x)


@pytest.mark.parametrize(
  ("mask", "message"),
  [
    (np.ones(4), r"mask_a must be bool \[4\] .*got float64 \[4\]"),
    (np.ones((4, 1), bool), r"got bool \[4, 1\]"),
    (np.array([0, 1, 2, 1]), "got the value 2"),
    (np.array(["True"] * 4), "got <U4"),
    (np.ones(5, bool), "array 'mask_a' has 5 rows, 'label' has 4"),
  ],
)
def test_bad_masks(mask, message):
  with pytest.raises(DataError, match=message):
    one(np.ones(4), mask)


@pytest.mark.parametrize(
  ("x", "message"),
  [
    (np.ones((4, 2)), r"'a' is float64 \[4, 2\], an embedding reads integers"),
    (np.ones((4, 2, 2), int), "an embedding reads integers"),
    (np.array([0, 1, -2, 0]), "token -2 at row 2"),
    (np.array([0, 2**31, 0, 0]), "token 2147483648 at row 1"),
  ],
)
def test_bad_tokens(x, message):
  with pytest.raises(DataError, match=message):
    one(x, encoders={"a": "embedding"})


def test_unknown_names_get_the_closest():
  arrays = {"audio": np.ones(4), "image": np.ones(4), "mask_adio": np.ones(4, bool)}
  with pytest.raises(DataError, match="mask_adio belongs to no modality; closest: audio"):
    read_inputs(arrays, ("audio", "image"))
  with pytest.raises(DataError, match=r"the encoder for 'imge' .* closest: image"):
    read_inputs({"image": np.ones(4)}, ("image",), encoders={"imge": "mlp"})
  with pytest.raises(DataError, match="'gyro' is not among the arrays; available: image"):
    read_inputs({"image": np.ones(4)}, ("gyro", "image"))


def test_the_mask_of_the_label_belongs_to_no_modality():
  arrays = {
    "a": np.ones(4),
    "label": np.arange(4),
    "mask_label": np.ones(4, bool),
    "weight": [1] * 4,
  }
  assert set(read_inputs(arrays, ("a",))[0]) == {"a"}


def test_rows_without_a_label():
  with pytest.raises(DataError, match="array 'b' has 5 rows, 'a' has 4"):
    read_inputs({"a": np.ones(4), "b": np.ones(5)}, ("a", "b"))


def test_names():
  reserved = ["label", "split", "group", "weight", "mask_a", "mask_label", "length_b"]
  assert _inputs.modality_names([*reserved, "b", "a"]) == ("a", "b")
  assert _inputs.modality_names(["y", "b"], "y") == ("b",)
  assert set(_inputs._TAKEN) == set(tree.RESERVED)  # copied, so that data imports without jax
  for name in ("heads", "fused", "shared", "", "a/b"):
    with pytest.raises(DataError, match=f"a modality cannot be called {name!r}"):
      _inputs.modality_names(["label", name])
  with pytest.raises(DataError, match="cannot be called 'label'"):
    _inputs.modality_names(["label", "y"], "y")
