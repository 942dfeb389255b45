"""Slots keep the mass of tokens, branches do not see each other, sums skip what is absent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.missing import _slots as slots

RNG = np.random.default_rng(0)


def draw(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_slots_add_up_to_the_tokens_that_count():
  f, logits = draw(2, 5, 3), draw(2, 5, 4)
  np.testing.assert_allclose(slots.reorganise(f, logits).sum(1), f.sum(1), atol=1e-5)
  valid = jnp.arange(5)[None] < jnp.asarray([5, 2])[:, None]
  np.testing.assert_allclose(
    slots.reorganise(f, logits, valid)[1].sum(0), f[1, :2].sum(0), atol=1e-5
  )


@pytest.mark.slow
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_branches_do_not_see_each_other(branches):
  x = draw(2, branches * 4, 6)
  np.testing.assert_array_equal(slots.from_branches(slots.to_branches(x, branches), branches), x)
  module = slots.Layers(2, 2)

  def tops(x):
    parts = slots.to_branches(x, branches)
    every = jnp.ones(parts.shape[:2], bool)
    params = module.init(jax.random.key(0), parts, every, train=False)
    return module.apply(params, parts, every, train=False)[:, 0].reshape(2, branches, 6)

  before, after = tops(x), tops(x.at[:, branches : branches + 3].multiply(-1.0))  # group 1
  assert np.abs(before[:, 0] - after[:, 0]).max() > 1e-4
  np.testing.assert_allclose(before[:, 1:], after[:, 1:], atol=1e-6)


def test_the_sum_is_over_those_present_in_any_order():
  x = {m: draw(3, 4, 2) for m in "ab"}
  mask = {"a": jnp.asarray([True, True, False]), "b": jnp.asarray([True, False, False])}
  found = slots.add_present(x, mask)
  np.testing.assert_allclose(found[0], x["a"][0] + x["b"][0])
  np.testing.assert_array_equal(found[1:], jnp.stack([x["a"][1], jnp.zeros((4, 2))]))


def test_the_mean_of_branches_by_hand():
  z = jnp.asarray([[[2.0, 0.0], [0.0, 1.0]]])
  p = jax.nn.softmax(z).mean(1)
  np.testing.assert_allclose(slots.mean_of_branches(z, "classification"), jnp.log(p), atol=1e-6)
  p = jax.nn.sigmoid(z).mean(1)
  want = jnp.log(p / (1 - p))
  np.testing.assert_allclose(slots.mean_of_branches(z, "multilabel"), want, atol=1e-6)
  np.testing.assert_allclose(slots.mean_of_branches(z, "regression"), [[1.0, 0.5]])
