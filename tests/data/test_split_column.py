"""A split of the data's own: names, two parts, groups that straddle."""

import numpy as np
import pytest

from mmfuse.data import DataError, from_arrays, table_from_arrays

ROWS = 40


def arrays(**more):
  rng = np.random.default_rng(0)
  return {"a": rng.normal(size=(ROWS, 3)), "label": np.arange(ROWS) % 4 // 2, **more}


def column(**rows):
  return np.repeat(list(rows), list(rows.values()))


def parts(splits):
  return [p.index.tolist() for p in (splits.train, splits.validation, splits.test)]


@pytest.mark.parametrize(
  ("names", "note"),
  [
    (("train", "val", "test"), "'val' as validation"),
    (("training", "dev", "testing"), "'dev' as validation, 'testing' as test, 'training' as train"),
    ((" Train", "VALID ", "Test"), "'valid' as validation"),
    (("train", "development", "test"), "'development' as validation"),
    (("TRAIN", "Validation", "test\n"), None),
    ((b"train", b"val", b"test"), "'val' as validation"),
    ((0, 1, 2), None),
  ],
)
def test_names(names, note):
  ours = table_from_arrays(arrays(split=column(train=20, validation=12, test=8)))
  table = table_from_arrays(arrays(split=np.repeat(np.asarray(names), [20, 12, 8])))
  assert table.notes == (() if note is None else (f"the split column was read with {note}",))
  assert parts(table.splits()) == parts(ours.splits())
  assert table.fingerprint == ours.fingerprint  # the same data under another name


def test_several_names_of_one_part():
  splits = from_arrays(arrays(split=column(train=20, dev=6, val=6, test=8)))
  assert parts(splits)[1] == list(range(20, 32))
  assert splits.notes == (
    "the split column was read with 'dev' as validation, 'val' as validation",
  )


@pytest.mark.parametrize(
  ("split", "got"),
  [
    (["train"] * 39 + ["eval"], "'eval' at row 39"),
    (["train"] * 39 + [""], "'' at row 39"),
    ([0] * 30 + [3] * 10, "3 at row 30"),
    ([0] * 30 + [-1] * 10, "-1 at row 30"),
    (np.uint64([0] * 39 + [2**63]), "9223372036854775808 at row 39"),
    ([False, True] * 20, "False at row 0"),
    ([0.0] * 40, "0.0 at row 0"),
  ],
)
def test_other_names_are_refused_with_the_first_row(split, got):
  with pytest.raises(DataError, match=f"split must be train, validation .*, got {got}"):
    from_arrays(arrays(split=split))


@pytest.mark.parametrize("split", [column(train=30, test=10), np.repeat([0, 2], [30, 10])])
def test_validation_is_carved_from_train_by_class(split):
  splits = from_arrays(arrays(split=split))
  assert parts(splits)[2] == list(range(30, 40))
  assert sorted(parts(splits)[0] + parts(splits)[1]) == list(range(30))
  np.testing.assert_array_equal(np.bincount(splits.validation.label), [3, 3])  # .2 of 16 and of 14
  assert splits.notes == (
    "the split column has no validation rows: 6 of 30 training rows validate, stratified by class",
  )
  again = from_arrays(arrays(split=split))
  assert parts(again) == parts(splits)
  other = from_arrays(arrays(split=split), seed=1)
  assert parts(other)[1] != parts(splits)[1] and parts(other)[2] == parts(splits)[2]


def test_validation_is_carved_by_group():
  splits = from_arrays(arrays(split=column(train=30, test=10), group=np.arange(ROWS) // 3 + 7))
  train, validation = set(splits.train.group), set(splits.validation.group)
  assert not train & validation and len(splits.validation.index) == 6
  assert splits.notes == (
    "the split column has no validation rows: 6 of 30 training rows validate, by group",
  )


def test_validation_is_carved_by_label_and_at_random():
  label = np.stack([np.arange(ROWS) % 6 == 0, np.arange(ROWS) % 2], 1).astype(int)  # 5 of 30
  splits = from_arrays(arrays(split=column(train=30, test=10), label=label))
  np.testing.assert_array_equal(splits.validation.label.sum(0), [1, 3])
  assert splits.notes[0].endswith("6 of 30 training rows validate, stratified by label")
  splits = from_arrays(arrays(split=column(train=30, test=10), label=np.arange(ROWS) / 2))
  assert splits.notes[0].endswith("6 of 30 training rows validate, drawn at random")


@pytest.mark.parametrize("grouped", [False, True])
def test_nothing_depends_on_the_rows_of_the_test_part(grouped):
  split = column(train=30, test=10)
  made = arrays(split=split, b=np.random.default_rng(1).normal(size=(ROWS, 2, 3)))
  made["mask_b"] = np.arange(ROWS) % 7 > 0
  if grouped:
    made["group"] = np.arange(ROWS) // 3 + 7
  test, rng = split == "test", np.random.default_rng(2)
  other = {k: v.copy() for k, v in made.items()}
  other["a"][test] = 1e6 * rng.normal(size=(10, 3))
  other["b"][test] = -5
  other["label"][test] = rng.permutation([0, 1] * 5)
  other["mask_b"][test] = True
  if grouped:
    other["group"][test] = 1000 + np.arange(10)
  one, two = from_arrays(made), from_arrays(other)
  assert one.scaler.to_json() == two.scaler.to_json()
  assert not np.array_equal(one.test.inputs["a"], two.test.inputs["a"])
  for x, y in ((one.train, two.train), (one.validation, two.validation)):
    np.testing.assert_array_equal(x.index, y.index)
    for m in ("a", "b"):
      assert x.inputs[m].tobytes() == y.inputs[m].tobytes()


@pytest.mark.parametrize(
  ("rows", "said"),
  [
    (
      {"train": 30, "validation": 10},
      "the test split is empty: train 30, validation 10, test 0 rows",
    ),
    ({"train": 40}, "the validation split is empty: train 40, validation 0, test 0 rows"),
    ({"validation": 30, "test": 10}, "the train split is empty"),
    ({"train": 1, "test": 39}, "the validation split is empty: train 1"),
  ],
)
def test_a_part_without_rows_names_the_way_out(rows, said):
  with pytest.raises(
    DataError, match=f"{said}.*; mark some rows .* leave the column out .* --folds 5"
  ):
    from_arrays(arrays(split=column(**rows)))


def test_codes_0_and_1_are_train_and_validation():
  with pytest.raises(DataError, match="the test split is empty: train 30, validation 10, test 0"):
    from_arrays(arrays(split=np.repeat([0, 1], [30, 10])))


def test_one_group_cannot_be_carved():
  with pytest.raises(DataError, match="validation split is empty and all training rows are of one"):
    from_arrays(arrays(split=column(train=30, test=10), group=np.arange(ROWS) // 30))


def test_too_few_rows_for_three_parts():
  with pytest.raises(DataError, match=r"split is empty: .*; three parts need at least three rows"):
    from_arrays({"a": np.ones((2, 3)), "label": [0, 1]})


SAID = (
  "2 of 10 groups stand in more than one part of the split column, the first is 's6' "
  "(train 2, validation 2, test 0 rows)"
)


def straddling():
  group = np.array([f"s{i // 4}" for i in range(ROWS)])  # s0..s9
  return arrays(split=column(train=26, validation=7, test=7), group=group)  # cuts s6 and s8


def test_groups_that_straddle_are_refused():
  with pytest.raises(DataError) as error:
    from_arrays(straddling())
  assert str(error.value).startswith(f"{SAID}; --allow-straddling (allow_straddling=True)")


def test_groups_that_straddle_are_taken_when_asked_for():
  splits = from_arrays(straddling(), allow_straddling=True)
  assert parts(splits)[0] == list(range(26)) and splits.notes == (
    f"{SAID}: taken as it is, so scores may reward what is known of a group",
  )
  table = table_from_arrays(straddling())
  assert parts(table.splits(allow_straddling=True)) == parts(splits)
  whole = arrays(split=column(train=24, validation=8, test=8), group=straddling()["group"])
  assert from_arrays(whole, allow_straddling=True).notes == ()


def test_folds_set_the_column_aside_and_say_so():
  splits = table_from_arrays(straddling()).splits(
    fold=0, folds=5
  )  # whole groups: nothing straddles
  assert splits.notes == (
    "the split column (train 26, validation 7, test 7 rows) is set aside: 5 folds of all rows, "
    "by group",
  )
  assert table_from_arrays(arrays()).splits(fold=0, folds=5).notes == ()
