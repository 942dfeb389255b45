"""Means over segments: what tells where something happens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.encoders._segments import grid_means, segment_means, shares


def test_by_hand():
  np.testing.assert_allclose(shares(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
  # 3 steps in 2 halves: the middle one counts half to both.
  np.testing.assert_allclose(shares(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], rtol=1e-6)
  np.testing.assert_allclose(shares(5, 1), np.full((1, 5), 0.2), rtol=1e-6)


@pytest.mark.parametrize("steps, segments", [(1, 1), (7, 3), (100, 8), (13, 8), (3, 8)])
def test_rows_sum_to_one_and_steps_count_alike(steps, segments):
  table = shares(steps, segments)
  np.testing.assert_allclose(table.sum(1), 1, rtol=1e-5)
  np.testing.assert_allclose(table.sum(0), segments / steps, rtol=1e-5)


def test_each_row_is_cut_within_its_own_length():
  x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype(np.float32)
  found = segment_means(jnp.asarray(x), 2, jnp.asarray([6, 4, 1]))
  np.testing.assert_allclose(found[0], segment_means(jnp.asarray(x[:1]), 2)[0], atol=1e-6)
  np.testing.assert_allclose(found[1], [x[1, :2].mean(0), x[1, 2:4].mean(0)], atol=1e-6)
  np.testing.assert_allclose(found[2], [x[2, 0], x[2, 0]], atol=1e-6)


def test_a_grid_is_the_same_in_both_layouts():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4, 3)), jnp.float32)
  found = grid_means(x, (2, 2))
  np.testing.assert_allclose(found[0, :3], x[0, :3, :2].mean((0, 1)), atol=1e-6)
  last = grid_means(jnp.swapaxes(x, 0, -1), (2, 2), batch_last=True)
  np.testing.assert_allclose(last, found, atol=1e-6)


@pytest.mark.parametrize(
  "module, shape",
  [
    (encoders.Conv1D(8, (4,)), (48, 2)),
    (encoders.Conv2D(8, (4,)), (12, 12, 1)),
    (encoders.Frames(encoders.Conv2D(8, (4,))), (8, 6, 6, 1)),
  ],
  ids=["sequence", "image", "frames"],
)
def test_where_something_happens_is_seen(module, shape):
  """A pulse early or late: far apart, though every mean over all positions is the same."""
  x = np.zeros((2, *shape), np.float32)
  x[0, 2:4], x[1, -4:-2] = 1, 1
  mask = jnp.ones(2, bool)
  run = lambda module: module.init_with_output(
    jax.random.key(0), jnp.asarray(x), mask, train=False
  )[0]
  h = run(module)
  assert float(jnp.abs(h[0] - h[1]).max()) > 0.05


@pytest.mark.parametrize("steps, left", [(1, 1), (6, 6), (16, 8), (100, 25), (2000, 72)])
def test_long_sequences_are_halved_and_short_ones_are_not(steps, left):
  module = encoders.Conv1D(8, (4, 8), pool="none")
  x = jax.ShapeDtypeStruct((2, steps, 3), jnp.float32)
  run = lambda x: module.init_with_output(jax.random.key(0), x, jnp.ones(2, bool), train=False)[0]
  assert jax.eval_shape(run, x).shape == (2, left, 8)
