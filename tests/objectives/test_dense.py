"""Dense cross-entropy by hand: class weights, void positions, rows that do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives

LOGITS = jax.random.normal(jax.random.key(0), (3, 2, 4, 5))
LABEL = jnp.asarray(np.random.default_rng(0).integers(-1, 5, (3, 2, 4)))
WEIGHTS = np.asarray([1.0, 2.0, 0.5, 3.0, 1.5])


def by_hand(row_weight, class_weights=np.ones(5)):
  log_p = np.asarray(jax.nn.log_softmax(LOGITS))
  total = norm = 0.0
  for i, y, x in np.ndindex(3, 2, 4):
    c = int(LABEL[i, y, x])
    if c >= 0:
      total -= row_weight[i] * class_weights[c] * log_p[i, y, x, c]
      norm += row_weight[i] * class_weights[c]
  return total / norm


@pytest.mark.parametrize("rows", [(1, 1, 1), (0.5, 0, 2)])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_by_hand(rows, weights):
  found = objectives.dense_loss(
    LOGITS, LABEL, jnp.asarray(rows, jnp.float32), class_weights=weights
  )
  want = by_hand(rows, np.ones(5) if weights is None else weights)
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_what_does_not_count_is_not_read():
  weight = jnp.asarray([1.0, 0.0, 1.0])
  known = (LABEL >= 0) & (weight > 0)[:, None, None]
  dirty = jnp.where(known[..., None], LOGITS, jnp.nan)
  loss = lambda z: objectives.dense_loss(z, LABEL, weight)
  for a, b in zip(jax.value_and_grad(loss)(LOGITS), jax.value_and_grad(loss)(dirty)):
    np.testing.assert_array_equal(a, b)


def test_nothing_that_counts_is_a_loss_of_zero_without_gradient():
  loss = lambda z: objectives.dense_loss(z, LABEL, jnp.zeros(3))
  value, grad = jax.value_and_grad(loss)(LOGITS)
  assert float(value) == 0.0 and not grad.any()
  assert float(objectives.dense_loss(LOGITS, 0 * LABEL - 1, jnp.ones(3))) == 0.0


def test_another_void_and_one_loss_of_one_row_dimension():
  weight = jnp.ones(3)
  label = jnp.where(LABEL < 0, 255, LABEL)
  np.testing.assert_allclose(
    objectives.dense_loss(LOGITS, label, weight, void=255),
    objectives.dense_loss(LOGITS, LABEL, weight),
  )


def test_scales_have_means_of_their_own():
  weight = jnp.asarray([1.0, 2.0, 0.0])
  scales = ((LOGITS, LOGITS[:, :1, :2]), (LABEL, LABEL[:, :1, :2]))
  found = objectives.multi_scale_loss(*scales, weight, class_weights=WEIGHTS)
  want = sum(objectives.dense_loss(z, y, weight, class_weights=WEIGHTS) for z, y in zip(*scales))
  np.testing.assert_allclose(found, want)
  with pytest.raises(ValueError, match="argument"):
    objectives.multi_scale_loss([LOGITS], [LABEL, LABEL], weight)
