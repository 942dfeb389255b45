"""Cutting into tokens: nothing is lost, by hand for every rank, and what a row's end leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.core import Sequence


def test_a_vector_is_cut_into_at_most_eight_segments():
  x = jnp.arange(64.0).reshape(2, 32)
  np.testing.assert_array_equal(encoders.as_tokens(x), x.reshape(2, 8, 4))
  few = encoders.as_tokens(jnp.arange(6.0).reshape(2, 3))
  np.testing.assert_array_equal(few, [[[0], [1], [2]], [[3], [4], [5]]])
  odd = encoders.as_tokens(jnp.arange(1.0, 10.0)[None])  # 9 = 5 x 2 - 1
  np.testing.assert_array_equal(odd[0], [[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]])
  assert encoders.as_tokens(jnp.ones(3)).shape == (3, 1, 1)


def test_an_image_is_cut_into_patches_row_by_row():
  x = jnp.arange(2 * 8 * 4 * 3.0).reshape(2, 8, 4, 3)
  tokens = encoders.as_tokens(x)
  assert tokens.shape == (2, 16, 2 * 1 * 3)
  np.testing.assert_array_equal(tokens[0, 0], x[0, :2, 0].reshape(-1))
  np.testing.assert_array_equal(tokens[1, 5], x[1, 2:4, 1].reshape(-1))  # second row, second column
  assert encoders.as_tokens(jnp.ones((1, 2, 9, 1))).shape == (1, 2 * 3, 1 * 3)


@pytest.mark.parametrize("shape", [(2, 1), (2, 50), (2, 5, 7, 2), (2, 40, 3), (2, 5, 4, 4, 1)])
def test_nothing_is_lost_and_nothing_added(shape):
  x = jax.random.uniform(jax.random.key(0), shape) + 1
  tokens = np.asarray(encoders.as_tokens(x))
  assert tokens.ndim == 3 and tokens.shape[1] <= 32
  kept = tokens[tokens != 0]
  np.testing.assert_array_equal(np.sort(kept), np.sort(np.ravel(x)))


def test_neighbouring_steps_share_a_token_where_there_are_many():
  steps = jnp.arange(1.0, 81.0).reshape(1, 40, 2)
  np.testing.assert_array_equal(encoders.as_tokens(steps)[0, 1], [5, 6, 7, 8])
  x = Sequence(jnp.concatenate([steps] * 3), jnp.array([40, 3, 0]))
  cut = encoders.as_tokens(x)
  np.testing.assert_array_equal(cut.length, [20, 2, 0])
  np.testing.assert_array_equal(cut.values[1, :2], [[1, 2, 3, 4], [5, 6, 0, 0]])
  assert not cut.values[2].any()


def test_what_stands_after_the_end_is_not_seen():
  x = jnp.ones((2, 40, 2)).at[0, 5:].set(jnp.nan)
  cut = encoders.as_tokens(Sequence(x, jnp.array([5, 40])))
  assert np.isfinite(cut.values).all() and not cut.values[0, 3:].any()


def test_integers_are_embedded_and_negative_ones_are_padding():
  module = encoders.Tokens(3, 4)
  tokens = jnp.array([[0, 1, -1], [-1, 2, -1], [7, 9, 2], [-1, -1, -1]])
  mask = jnp.ones(4, bool)
  cut, variables = module.init_with_output(jax.random.key(0), tokens, mask, train=False)
  table = variables["params"]["table"]
  assert table.shape == (4, 4)
  np.testing.assert_array_equal(cut.length, [2, 2, 3, 0])
  np.testing.assert_array_equal(cut.values[0, :2], table[:2])
  assert not cut.values[1, 0].any()  # in the middle of a row: nothing, in its place
  np.testing.assert_array_equal(cut.values[2], table[jnp.array([3, 3, 2])])
  ended = module.apply(variables, Sequence(tokens[2:3], jnp.array([1])), mask[:1], train=False)
  np.testing.assert_array_equal(ended.length, [1])
  single = module.apply(variables, jnp.array([2, 0]), mask[:2], train=False)
  assert single.values.shape == (2, 1, 4)
  with pytest.raises(TypeError, match="tokens are cut from floats, got dtype int32"):
    encoders.as_tokens(tokens)


def test_before_a_transformer_any_modality_is_a_sequence():
  module = encoders.Chain((encoders.Tokens(), encoders.Transformer(4, 1, 2, pool="mean")))
  assert module.reads_lengths and module.features == 4
  for shape in ((3,), (3, 5), (3, 6, 2), (3, 5, 5, 1), (3, 2, 4, 4, 1)):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    run = lambda x: module.init_with_output(jax.random.key(0), x, jnp.ones(3, bool), train=False)
    assert jax.eval_shape(run, x)[0].shape == (3, 4)
