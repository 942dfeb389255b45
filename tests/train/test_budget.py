"""Batch and epochs where nobody said."""

import pytest

from mmfuse import train


@pytest.mark.parametrize(
  "rows, batch_size, epochs, epoch_steps",
  [
    (1, 8, 450, 1),
    (24, 8, 150, 3),  # forty rows, 24 of them to train on
    (140, 16, 50, 9),
    (961, 64, 30, 16),  # watch_imu
    (55_000, 64, 11, 860),
    (1_000_000, 64, 5, 15_625),
  ],
)
def test_by_the_number_of_rows(rows, batch_size, epochs, epoch_steps):
  found = train.budget(rows)
  assert found == (batch_size, epochs, epochs * epoch_steps, epoch_steps)


def test_what_is_given_is_kept():
  assert train.budget(24, batch_size=64, epochs=3) == (64, 3, 3, 1)
  assert train.budget(24, epochs=3) == (8, 3, 9, 3)
  assert train.budget(961, batch_size=961) == (961, 450, 450, 1)


def test_below_the_ceiling_there_is_a_floor():
  for rows in range(1, 3000, 7):
    found = train.budget(rows)
    assert 450 <= found.steps <= 10_000 and 8 <= found.batch_size <= 64
    assert found.epoch_steps >= 8 or found.batch_size == 8
