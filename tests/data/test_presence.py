import numpy as np

from mmfuse.data import _presence

ROWS = {"train": np.arange(6), "validation": np.arange(6, 9), "test": np.arange(9, 12)}
ALL = {"a": np.ones(12, bool)}


def test_nothing_is_said_where_every_part_has_every_class():
  label = np.arange(12) % 3
  assert _presence.notes(ROWS, ALL, label, "classification", ("x", "y", "z")) == []
  assert _presence.notes(ROWS, ALL, label.astype(float), "regression", ()) == []


def test_a_modality_and_a_class_with_counts():
  mask = {**ALL, "b": np.arange(12) < 8}
  label = np.array([0, 1] * 4 + [0, 0, 0, 2])
  assert _presence.notes(ROWS, mask, label, "classification", ("x", "y", "z")) == [
    "1 modality has no row in some part: b (train 6, validation 2, test 0)",
    "2 classes have no row in some part: z (train 0, validation 0, test 1), "
    "y (train 3, validation 1, test 0)",
  ]


def test_one_note_for_many_classes():
  (note,) = _presence.notes(ROWS, ALL, np.arange(12), "classification", tuple("abcdefghijkl"))
  assert note.startswith("12 classes have no row in some part: g (train 0, validation 1, test 0), ")
  assert note.endswith(" and 7 more") and note.count("train") == 5


def test_labels_count_positive_rows():
  label = np.zeros((12, 2), int)
  label[:, 0] = 1
  label[2, 1] = 1
  assert _presence.notes(ROWS, ALL, label, "multilabel", ("0", "1")) == [
    "1 label has no positive row in some part: 1 (train 1, validation 0, test 0)"
  ]


def test_rows_without_a_label_do_not_count():
  label, labelled = np.arange(12) % 2, np.arange(12) < 9
  assert _presence.notes(ROWS, ALL, label, "classification", ("x", "y"), labelled) == [
    "2 classes have no row in some part: x (train 3, validation 2, test 0), "
    "y (train 3, validation 1, test 0)"
  ]
