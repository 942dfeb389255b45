import numpy as np
import pytest

from mmfuse.data import DataError, fake, load, table_from_arrays

ROWS = 30


def arrays(**more):
  rng = np.random.default_rng(0)
  return {
    "a": rng.normal(size=(ROWS, 3)),
    "b": rng.normal(size=(ROWS, 5, 2)),
    "c": rng.normal(size=ROWS),
    "mask_b": np.arange(ROWS) % 4 > 0,
    "length_b": np.arange(ROWS) % 5 + 1,
    "label": np.arange(ROWS) % 2,
    **more,
  }


@pytest.mark.parametrize(
  "choice", [{"modalities": ["c", "a"]}, {"ignore": ("b",)}, {"ignore": "b"}]
)
def test_what_is_left_out_is_not_read(choice):
  every = arrays()
  table = table_from_arrays({**every, "b": np.array(["never read"])}, **choice)
  assert table.modalities == ("a", "c") and table.notes == ("not used, as asked: b",)
  plain = table_from_arrays({n: every[n] for n in ("a", "c", "label")})
  assert table.fingerprint == plain.fingerprint != table_from_arrays(every).fingerprint


def test_an_array_that_could_be_no_modality_can_be_ignored():
  extra = {"fused": np.ones(3), "rate": np.float32(50), "names": np.array([{}] * 30)}
  table = table_from_arrays(arrays(**extra), ignore=list(extra))
  assert table.modalities == ("a", "b", "c")
  assert table.notes == ("not used, as asked: fused, names, rate",)


@pytest.mark.parametrize(
  ("choice", "message"),
  [
    ({"modalities": ["a"], "ignore": ["b"]}, "two ways to say the same: expected one of them"),
    ({"modalities": ["a", "bb"]}, "modalities names 'bb', .* closest: b; available: a, b, c"),
    ({"ignore": ["label"]}, "ignore names 'label', which is no modality"),
    ({"ignore": ["mask_b"]}, "ignore names 'mask_b', which is no modality"),
    ({"ignore": ["a", "b", "c"]}, "ignore leaves no modality of a, b, c"),
    ({"modalities": []}, "modalities leaves no modality"),
    ({"ignore": ["b"], "encoders": {"b": "gru"}}, "the encoder for 'b' belongs to no modality"),
  ],
)
def test_bad_choices(choice, message):
  with pytest.raises(DataError, match=message):
    table_from_arrays(arrays(), **choice)


def test_choices_for_an_npz(tmp_path):
  np.savez(tmp_path / "my.npz", **arrays())
  assert load(str(tmp_path / "my.npz"), modalities=("a",)).modalities == ("a",)
  assert load(str(tmp_path / "my.npz"), ignore=("c",)).modalities == ("a", "b")


def test_choices_for_a_built_in_set():
  one = load("digits", modalities=["A", "C"])
  assert one.modalities == ("A", "C") and one.notes == ("not used, as asked: B",)
  assert one.fingerprint == load("digits", ignore=["B"]).fingerprint != load("digits").fingerprint
  assert load("digits", modalities=["A", "B", "C"]).fingerprint == load("digits").fingerprint
  with pytest.raises(DataError, match="ignore names 'D', which is no modality; available: A, B, C"):
    load("digits", ignore=["D"])
  with pytest.raises(DataError, match="the encoder for 'B' belongs to no modality"):
    load("digits", ignore=["B"], encoders={"B": "mlp"})


def test_rows_that_lose_their_only_modality():
  from mmfuse.data._choice import used_table

  table = table_from_arrays(arrays(weight=np.arange(ROWS) + 1.0, mask_label=np.arange(ROWS) != 2))
  with pytest.raises(DataError, match=r"8 of 30 rows have no modality .* row 0"):
    used_table(table, ["b"], None)
  left = used_table(table, ["b"], None, drop_empty=True)
  assert left.notes == ("not used, as asked: a, c", "8 rows without a modality dropped")
  kept = np.arange(ROWS)[np.arange(ROWS) % 4 > 0]
  np.testing.assert_array_equal(left.weight, kept + 1)
  np.testing.assert_array_equal(left.labelled, kept != 2)
  np.testing.assert_array_equal(left.inputs["b"].length, kept % 5 + 1)
  assert fake(left).inputs["b"].values.shape == (24, 5, 2)


IDENTIFIERS = {
  "many": ("visit", np.arange(100, 130)),
  "column": ("visit", np.arange(100, 130)[:, None]),
  "shuffled": ("visit", np.random.default_rng(0).permutation(ROWS).astype(np.uint16)),
}


@pytest.mark.parametrize("case", IDENTIFIERS)
def test_identifiers_are_refused(case):
  name, x = IDENTIFIERS[case]
  with pytest.raises(
    DataError, match=r"'visit' looks like an identifier: 30 different .*--ignore visit"
  ):
    table_from_arrays(arrays(**{name: x}))
  assert "visit" not in table_from_arrays(arrays(**{name: x}), ignore=["visit"]).inputs
  named = table_from_arrays(arrays(**{name: x}), modalities=["a", "visit"])
  assert named.modalities == ("a", "visit")
  chosen = table_from_arrays(arrays(**{name: x}), encoders={name: "mlp"})
  assert "visit" in chosen.inputs


@pytest.mark.parametrize("name", ["id", "ID", "sample_id", "patientId", "uuid", "row", "index"])
def test_names_that_say_it_need_fewer_rows(name):
  few = {"a": np.ones((6, 2)), "label": np.arange(6) % 2, name: np.arange(6)}
  with pytest.raises(DataError, match=f"'{name}' looks like an identifier: 6 different"):
    table_from_arrays(few)


@pytest.mark.parametrize(
  ("name", "x"),
  [
    ("id", np.arange(ROWS) // 2),  # not all different
    ("visit", np.arange(ROWS) // 2),
    ("visit", np.arange(ROWS) * 1.5),  # floats are measurements
    ("visit", np.arange(2 * ROWS).reshape(ROWS, 2)),
    ("grid", np.arange(ROWS) % 29),
  ],
)
def test_other_columns_are_modalities(name, x):
  assert name in table_from_arrays(arrays(**{name: x})).inputs


def test_few_rows_without_a_name_that_says_it():
  few = {"a": np.ones((20, 2)), "label": np.arange(20) % 2, "grid": np.arange(20)}
  assert table_from_arrays(few).modalities == ("a", "grid")


def test_only_present_rows_make_an_identifier():
  x = np.where(np.arange(ROWS) < 25, np.arange(ROWS), 7)
  with pytest.raises(DataError, match="25 different integers in 25 rows"):
    table_from_arrays(arrays(visit=x, mask_visit=np.arange(ROWS) < 25))


def test_strings_are_refused_with_a_way_out():
  words = np.array([f"patient {i}" for i in range(ROWS)])
  for x in (words, words[:, None]):
    with pytest.raises(
      DataError, match=r"'who' holds strings.*--encoder who=embedding.*--ignore who"
    ):
      table_from_arrays(arrays(who=x))
