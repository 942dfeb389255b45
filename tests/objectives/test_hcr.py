"""The loss of rows of hard subsets, as meant and as released."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.objectives import hard_combination_loss

LOSSES = jnp.asarray([1.0, 2.0, 4.0, 8.0])
HARD = jnp.asarray([True, False, True, False])
ONES = jnp.ones(4)


def test_by_hand():
  assert float(hard_combination_loss(LOSSES, HARD, ONES)) == 5 / 4  # over all four rows
  assert float(hard_combination_loss(LOSSES, HARD, ONES, variant="released")) == 2 * 15 / 4


@pytest.mark.parametrize("variant", ["intended", "released"])
def test_without_hard_rows_it_is_0_and_of_all_it_is_the_mean(variant):
  run = lambda hard: hard_combination_loss(LOSSES, hard, ONES, variant=variant)
  assert float(run(jnp.zeros(4, bool))) == 0
  assert float(run(jnp.ones(4, bool))) == 15 / 4 * (4 if variant == "released" else 1)
  assert float(hard_combination_loss(LOSSES, HARD, 0 * ONES, variant=variant)) == 0


@pytest.mark.parametrize("variant", ["intended", "released"])
def test_rows_of_weight_0_are_never_read(variant):
  losses, weight = LOSSES.at[0].set(jnp.nan), ONES.at[0].set(0)
  run = lambda l: hard_combination_loss(l, HARD, weight, variant=variant)
  value, grad = jax.value_and_grad(run)(losses)
  want = hard_combination_loss(LOSSES[1:], HARD[1:], ONES[1:], variant=variant)
  assert float(value) == pytest.approx(float(want)) and float(grad[0]) == 0


def test_a_row_counts_by_its_weight():
  weight = jnp.asarray([2.0, 1, 1, 1])
  assert float(hard_combination_loss(LOSSES, HARD, weight)) == pytest.approx(6 / 5)
  np.testing.assert_allclose(
    jax.grad(lambda l: hard_combination_loss(l, HARD, weight))(LOSSES), [0.4, 0, 0.2, 0], rtol=1e-6
  )


def test_an_unknown_variant_is_refused():
  with pytest.raises(ValueError, match="unknown variant 'x'; expected one of: intended, released"):
    hard_combination_loss(LOSSES, HARD, ONES, variant="x")
