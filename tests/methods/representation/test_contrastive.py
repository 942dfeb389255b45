"""The symmetric InfoNCE against Optax's cross-entropy, and what does not count."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse.methods.representation._contrastive import symmetric_loss

RNG = np.random.default_rng(0)
UNIT = {
  m: jnp.asarray((x := RNG.normal(size=(5, 3))) / np.linalg.norm(x, axis=1, keepdims=True))
  for m in "abc"
}
EVERY = {m: jnp.ones(5, bool) for m in "abc"}


def test_it_is_the_mean_cross_entropy_both_ways_over_pairs():
  want = []
  for m, n in ("ab", "ac", "bc"):
    s = UNIT[m] @ UNIT[n].T / 0.2
    for scores in (s, s.T):
      losses = optax.softmax_cross_entropy_with_integer_labels(scores, jnp.arange(5))
      want.append(losses.mean())
  assert symmetric_loss(UNIT, EVERY, jnp.ones(5), 0.2) == pytest.approx(float(np.mean(want)))


def test_rows_that_lack_a_modality_are_neither_right_nor_wrong_answers():
  there = jnp.asarray([True, True, False, True, False])
  mask = {"a": there, "b": jnp.ones(5, bool)}
  two = {m: UNIT[m] for m in "ab"}
  found = symmetric_loss(two, mask, jnp.ones(5), 0.1)
  few = {m: x[np.asarray(there)] for m, x in two.items()}
  want = symmetric_loss(few, {m: jnp.ones(3, bool) for m in "ab"}, jnp.ones(3), 0.1)
  assert found == pytest.approx(float(want), rel=1e-5)
  weight = jnp.where(there, 1.0, 0.0)
  assert symmetric_loss(two, {m: jnp.ones(5, bool) for m in "ab"}, weight, 0.1) == found


def test_without_a_pair_there_is_nothing_to_learn_and_the_gradient_is_zero():
  mask = {"a": jnp.arange(5) < 2, "b": jnp.arange(5) >= 2}

  def loss(a):
    return symmetric_loss({"a": a, "b": UNIT["b"]}, mask, jnp.ones(5), 0.1)

  value, grad = jax.value_and_grad(loss)(UNIT["a"])
  assert value == 0 and not grad.any()
