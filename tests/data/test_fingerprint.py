import numpy as np
import pytest

from mmfuse.data import table_from_arrays


def print_of(recipe="", **change):
  base = {
    "a": np.arange(12.0).reshape(6, 2),
    "b": np.ones(6),
    "label": [0, 1, 0, 1, 0, 1],
    "split": [0, 1, 2, 0, 1, 2],
    "group": [0, 1, 2, 0, 1, 2],
    "mask_a": [1, 1, 1, 1, 1, 0],
  }
  changed = {k: np.asarray(v) for k, v in {**base, **change}.items() if v is not None}
  return table_from_arrays(changed, recipe=recipe).fingerprint


def test_same_content_same_print():
  assert print_of() == print_of() and len(print_of()) == 64
  assert print_of(a=np.arange(12, dtype=">f8").reshape(6, 2)) == print_of()  # the same numbers
  assert print_of(group=["0", "1", "2"] * 2) != print_of(group=["0", "1", "3"] * 2)


@pytest.mark.parametrize(
  "change",
  [
    {"recipe": "2"},
    {"b": np.ones(6) * 2},
    {"b": np.ones((6, 1, 1))},
    {"b": None, "c": np.ones(6)},
    {"label": [0, 1, 0, 1, 1, 0]},
    {"label": ["0", "x"] * 3},
    {"split": [0, 1, 2, 0, 2, 1]},
    {"split": None},
    {"group": [0, 1, 2, 0, 1, 1]},
    {"group": None},
    {"mask_a": [1, 1, 1, 1, 0, 0]},
    {"mask_b": [0, 1, 1, 1, 1, 1]},
    {"mask_label": [1, 1, 1, 1, 1, 0]},
    {"weight": [1, 1, 1, 1, 1, 2]},
    {"weight": [1, 1, 1, 1, 1, 1]},
  ],
)
def test_every_part_counts(change):
  assert print_of(**change) != print_of()


def test_an_absent_row_is_not_a_row_of_zeros():
  assert print_of(b=np.zeros(6)) != print_of(b=np.zeros(6), mask_b=[0, 1, 1, 1, 1, 1])
