"""Combinations as numbers, the loss of the hard ones in both forms, the sampler that grows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import masks, objectives
from mmfuse.methods.missing import _combinations as combinations

MASK = {
  "b": jnp.asarray([True, False, False, True, False]),
  "a": jnp.asarray([True, True, False, False, False]),
  "c": jnp.asarray([False, False, True, True, False]),
}
LOGITS = jax.random.normal(jax.random.key(0), (5, 4))
LABEL = jnp.asarray([0, 3, 1, 2, 2])
WEIGHT = jnp.asarray([1.0, 2.0, 0.5, 0.0, 1.0])


def losses(logits=LOGITS):
  return objectives.row_losses(logits, LABEL)


def test_the_place_in_the_order_of_the_tables():
  # 100 010 001 110 101 011 111, and 7 of a row that has nothing
  np.testing.assert_array_equal(combinations.combination_index(MASK), [3, 0, 2, 5, 7])
  for num in (1, 2, 4):
    names = "abcd"[:num]
    every = masks.combinations(names)
    mask = {m: jnp.asarray([m in c for c in every]) for m in names}
    np.testing.assert_array_equal(combinations.combination_index(mask), np.arange(2**num - 1))


def test_rows_among_the_chosen():
  wanted = combinations.chosen((("c", "b"), ("a",)), "abc")
  np.testing.assert_array_equal(wanted, [True, False, False, False, False, True, False])
  found = combinations.among(jnp.asarray(wanted), combinations.combination_index(MASK))
  np.testing.assert_array_equal(found, [False, True, False, True, False])
  with pytest.raises(ValueError, match=r"no combination 'a\+d' of modalities; they are: a, b"):
    combinations.chosen((("a", "d"),), ("a", "b"))
  with pytest.raises(ValueError, match="no combination 'nothing'"):
    combinations.chosen(((),), ("a", "b"))


def test_intended_is_the_task_loss_where_all_are_hard_and_nothing_where_none_is():
  task = lambda z: objectives.weighted_mean(losses(z), WEIGHT)
  hard = lambda z, rows: combinations.hard_loss(losses(z), jnp.full(5, rows), WEIGHT)
  want, grad = jax.value_and_grad(task)(LOGITS)
  value, found = jax.value_and_grad(hard)(LOGITS, True)
  np.testing.assert_allclose(value, want, rtol=1e-6)
  np.testing.assert_allclose(found, grad, atol=1e-7)
  value, found = jax.value_and_grad(hard)(LOGITS, False)
  assert float(value) == 0.0 and not found.any()


def test_some_hard_by_hand():
  rows = jnp.asarray([True, False, True, True, False])
  each = np.asarray(losses())
  found = combinations.hard_loss(losses(), rows, WEIGHT)
  np.testing.assert_allclose(found, (each[0] + 0.5 * each[2]) / 4.5, rtol=1e-6)
  grad = jax.grad(lambda z: combinations.hard_loss(losses(z), rows, WEIGHT))(LOGITS)
  np.testing.assert_array_equal(np.asarray(grad).any(-1), [True, False, True, False, False])


@pytest.mark.parametrize("rows", [(0, 0, 0, 0, 0), (1, 0, 1, 1, 0), (1, 1, 1, 1, 1)])
def test_released_is_the_task_loss_times_the_number_of_hard_rows(rows):
  rows = jnp.asarray(rows, bool)
  task = objectives.weighted_mean(losses(), WEIGHT)
  found = combinations.hard_loss(losses(), rows, WEIGHT, "released")
  count = int((rows & (WEIGHT > 0)).sum())
  np.testing.assert_allclose(found, count * task, rtol=1e-6)


@pytest.mark.parametrize("variant", ["intended", "released"])
def test_a_row_of_weight_0_is_not_read(variant):
  dirty = losses().at[3].set(jnp.nan)
  rows = jnp.asarray([True, False, True, True, False])
  both = [combinations.hard_loss(each, rows, WEIGHT, variant) for each in (losses(), dirty)]
  np.testing.assert_array_equal(*both)


def test_the_sampler_deals_all_rows_and_grows_within_its_bounds():
  epochs = jnp.asarray([[0, 15, 16], [18, 22, 99]])
  found = combinations.unbalanced_counts(epochs, 23, 7, (0, 2), (3, 6), start=15, most=3)
  assert found.shape == (2, 3, 7) and (found.sum(-1) == 23).all()
  np.testing.assert_array_equal(found[0, 0], [4, 4, 3, 3, 3, 3, 3])
  np.testing.assert_array_equal(found[0, 1], found[0, 0])
  np.testing.assert_array_equal(found[0, 2], [5, 4, 4, 2, 3, 3, 2])
  np.testing.assert_array_equal(found[1, 0], [7, 4, 6, 0, 3, 3, 0])
  np.testing.assert_array_equal(found[1, 2], found[1, 0])
