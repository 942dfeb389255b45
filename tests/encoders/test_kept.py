"""What dropout keeps: the share asked for, rows that do not know each other, an expectation that stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.encoders import Transformer
from mmfuse.encoders._kept import dropped, kept


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_a_share_of_one_less_the_rate_is_kept(rate):
  keep = kept(jax.random.key(0), rate, (64, 3, 7, 13))
  n = keep.size
  assert keep.shape == (64, 3, 7, 13) and keep.dtype == bool
  assert abs(keep.mean() - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / n) + 2**-17


def test_neighbours_that_share_a_word_are_independent():
  keep = np.asarray(kept(jax.random.key(1), 0.5, (4096, 2)), float) - 0.5
  assert abs((keep[:, 0] * keep[:, 1]).mean()) < 5 * 0.25 / 64


def test_rows_draw_the_same_however_many_there_are():
  few, many = (kept(jax.random.key(2), 0.3, (rows, 4, 5)) for rows in (3, 8))
  np.testing.assert_array_equal(few, many[:3])


def test_dropped_keeps_the_expectation_and_passes_nothing_where_dropped():
  x, keep = jnp.full((50, 400), 2.0), kept(jax.random.key(3), 0.25, (50, 400))
  assert abs(dropped(x, keep, 0.25).mean() - 2.0) < 0.05
  assert dropped(x, None, 0.25) is x
  nan = jax.grad(lambda x: dropped(x, jnp.zeros(2, bool), 0.25).sum())(jnp.array([jnp.nan, 1.0]))
  np.testing.assert_array_equal(nan, 0.0)


def test_layers_and_halves_of_a_transformer_draw_apart():
  """With every weight the same, equal draws would make the two layers' dropout one pattern."""
  module = Transformer(4, 2, 2, dropout=0.5)
  keep = (
    module.clone().bind({}, rngs={"dropout": jax.random.key(4)})._keep(jnp.zeros((8, 6, 4)), None)
  )
  assert keep.shape == (8, 4, 6, 4)
  agree = [(keep[:, i] == keep[:, j]).mean() for i in range(4) for j in range(i)]
  assert max(agree) < 0.7
