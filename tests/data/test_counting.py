import numpy as np
import pytest

from mmfuse.data import DataError, from_arrays, table_from_arrays
from mmfuse.data._counting import balanced

ROWS = 30
SPLIT = np.repeat([0, 1, 2], [18, 6, 6])


def table(**more):
  x = np.random.default_rng(0).normal(4, 2, (ROWS, 3))
  base = {"a": x, "label": np.arange(ROWS) % 3, "split": SPLIT}
  return table_from_arrays({k: v for k, v in {**base, **more}.items() if v is not None})


def test_weights_are_those_of_training():
  weight = np.where(np.arange(ROWS) % 3 == 2, 5.0, 1.0)
  splits = table(weight=weight).splits()
  assert splits.modalities == ("a",) and splits.train.weight.dtype == np.float32
  np.testing.assert_allclose(splits.train.weight[:3], np.array([1, 1, 5]) * 3 / 7, rtol=1e-6)
  np.testing.assert_allclose(splits.train.weight.mean(), 1, rtol=1e-6)
  assert splits.validation.weight is None and splits.test.weight is None
  assert splits.notes == (
    "weight: training rows have weights from 1 to 5, divided by their mean; "
    "scores count every row alike",
  )
  assert table().splits().train.weight is None


def test_weighted_scores():
  weight = np.arange(ROWS) + 1
  splits = table(weight=weight).splits(weighted_scores=True)
  for part in (splits.train, splits.validation, splits.test):
    mine = weight[part.index]
    np.testing.assert_allclose(part.weight, mine / mine.mean(), rtol=1e-6)
  assert splits.notes[-1].endswith("validation and test scores too")


def test_rows_of_weight_0():
  splits = table(weight=(np.arange(ROWS) >= 4).astype(int)).splits()
  np.testing.assert_array_equal(splits.train.weight == 0, np.arange(18) < 4)
  assert len(splits.train.label) == 18
  assert splits.notes[-1] == "4 of 18 training rows have weight 0 and count as absent"
  with pytest.raises(DataError, match="every row of the train split has weight 0"):
    table(weight=np.arange(ROWS) >= 18).splits()
  with pytest.raises(DataError, match="every row of the test split has weight 0"):
    table(weight=np.arange(ROWS) < 24).splits(weighted_scores=True)


def test_balanced_by_hand():
  label = np.array([0, 0, 0, 2, 2, 0])  # class 1 has no row
  every = np.ones(6, bool)
  np.testing.assert_allclose(balanced(label, every), [0.75, 0.75, 0.75, 1.5, 1.5, 0.75])
  counts = np.array([0, 1, 1, 1, 1, 0], bool)
  np.testing.assert_allclose(balanced(label, counts), [1, 1, 1, 1, 1, 1])
  np.testing.assert_allclose(balanced(label, counts).sum(), 6)


def test_class_weights():
  label = np.where(np.arange(ROWS) % 6 == 0, 1, 0)  # 3 of 18 training rows
  splits = table(label=label).splits(class_weights="balanced")
  np.testing.assert_allclose(splits.train.weight[:2], [18 / 6, 18 / 30], rtol=1e-6)
  assert splits.test.weight is None
  assert splits.notes == ("class weights: a training row counts n / (C n_c), from 0.6 to 3",)
  both = table(label=label, weight=np.arange(ROWS) % 2 + 1).splits(class_weights="balanced")
  own = np.array([1, 2] * 9) * np.where(label[:18] == 1, 3, 0.6)
  np.testing.assert_allclose(both.train.weight, own / own.mean(), rtol=1e-6)
  unknown = table(label=label, mask_label=np.arange(ROWS) != 0).splits(class_weights="balanced")
  each = np.where(label[:18] == 1, 17 / 4, 17 / 30)  # 2 and 15 known rows
  each[0] = 1
  np.testing.assert_allclose(unknown.train.weight, each / each.mean(), rtol=1e-6)


def test_bad_calls():
  with pytest.raises(DataError, match="class_weights must be None or 'balanced', got 'blanced'"):
    table().splits(class_weights="blanced")
  with pytest.raises(
    DataError, match="class weights are for classes, the labels make a regression"
  ):
    table(label=np.arange(ROWS) / 7).splits(class_weights="balanced")
  with pytest.raises(DataError, match=r"\(--weighted-scores\) needs an array 'weight'"):
    table().splits(weighted_scores=True)


@pytest.mark.parametrize(
  ("weight", "got"),
  [
    (np.full(ROWS, -1.0), "got -1 at row 0"),
    (np.where(np.arange(ROWS) == 7, np.nan, 1), "got nan at row 7"),
    (np.where(np.arange(ROWS) == 7, np.inf, 1), "got inf at row 7"),
    (np.zeros(ROWS), "got 0 in every row"),
    (np.ones((ROWS, 2)), r"got float64 \[30, 2\] \(rename it"),
    (np.ones(ROWS - 1), r"got float64 \[29\]"),
    (np.array(["heavy"] * ROWS), "got <U5"),
    (np.ma.array(np.ones(ROWS), mask=np.arange(ROWS) == 2), "'weight' is masked at row 2"),
  ],
)
def test_bad_weights(weight, got):
  with pytest.raises(DataError, match=got):
    table(weight=weight)


def test_unknown_labels():
  known = np.arange(ROWS) % 5 > 0  # 4 of 18, 1 of 6 and 1 of 6 unknown
  splits = table(label=np.where(known, np.arange(ROWS) % 3, -1), mask_label=known).splits()
  assert splits.class_names == ("0", "1", "2")
  for part in (splits.train, splits.validation, splits.test):
    np.testing.assert_array_equal(part.labelled, known[part.index])
    assert not part.label[~part.labelled].any()
  assert splits.notes == (
    "6 of 30 rows have no label (train 4 of 18, validation 1 of 6, test 1 of 6): they train what "
    "reads none and count in no loss or score",
  )
  assert table(mask_label=np.ones(ROWS, int)).splits().train.labelled is None
  zeros = np.where(known, np.arange(ROWS) % 3, 0)
  assert table(mask_label=known).fingerprint != table(label=zeros).fingerprint


def test_what_stands_at_an_unknown_label_changes_nothing():
  known = np.arange(ROWS) % 5 > 0
  prints = {
    table(label=np.where(known, np.arange(ROWS) / 7, fill), mask_label=known).fingerprint
    for fill in (np.nan, 0, np.inf)
  }
  assert len(prints) == 1


def test_masked_labels_are_unknown():
  hidden = np.arange(ROWS) % 5 == 0
  label = np.ma.array(np.arange(ROWS) % 3, mask=hidden)
  assert table(label=label).fingerprint == table(mask_label=~hidden).fingerprint
  pairs = np.ma.array(np.ones((ROWS, 2), int), mask=False)
  pairs.mask[4, 1] = True
  with pytest.raises(DataError, match="'label' is masked in part at row 4"):
    table(label=pairs)


def test_unknown_labels_are_a_stratum_of_their_own():
  known = np.arange(ROWS) % 3 > 0  # 20 known: 10 of each class
  splits = table(mask_label=known, split=None, label=np.arange(ROWS) % 2).splits()
  for part, unknown in ((splits.train, 6), (splits.validation, 2), (splits.test, 2)):
    assert (~part.labelled).sum() == unknown
    np.testing.assert_array_equal(np.bincount(part.label[part.labelled]), [unknown, unknown])


def test_a_class_that_only_one_part_has_is_named():
  label = np.array([0, 1] * 12 + [2] * 6)
  (note,) = table(label=label).splits().notes
  assert note.startswith("3 classes have no row in some part: 2 (train 0, validation 0, test 6)")
  known = np.arange(ROWS) < 28  # of class 2, four rows of the test part
  label[:4] = 2  # unknown ones are no training rows of the class
  notes = table(label=label, mask_label=known & (np.arange(ROWS) >= 4)).splits().notes
  assert "2 (train 0, validation 0, test 4)" in notes[0]


def test_a_part_without_a_label():
  with pytest.raises(DataError, match="the validation split has no row with a label: all 6 are"):
    table(mask_label=SPLIT != 1).splits()


@pytest.mark.parametrize(
  ("mask", "message"),
  [
    (np.ones(ROWS), r"mask_label must be bool \[30\] or integers 0 and 1 \(True = known\)"),
    (np.full(ROWS, 2), "got the value 2"),
    (np.ones(ROWS - 1, bool), "array 'mask_label' has 29 rows, 'label' has 30"),
    (np.zeros(ROWS, bool), "no row has a label"),
  ],
)
def test_bad_label_masks(mask, message):
  with pytest.raises(DataError, match=message):
    table(mask_label=mask)


def test_a_label_of_another_name():
  arrays = {"a": np.ones(ROWS), "y": np.arange(ROWS) % 3, "mask_y": np.arange(ROWS) % 5 > 0}
  assert from_arrays(arrays, label="y").train.labelled is not None
  with pytest.raises(DataError, match="mask_label belongs to no modality"):
    from_arrays({**arrays, "mask_label": np.ones(ROWS, bool)}, label="y")
  heavy = {"a": np.ones(ROWS), "weight": np.arange(ROWS) % 3}
  assert from_arrays(heavy, label="weight").train.weight is None
