"""Supervised losses against numbers computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives
from mmfuse.core import Batch, Outputs

LN2, LN4 = np.log(2.0), np.log(4.0)


def make(label, weight=(1.0, 1.0), mask_b=(True, True)):
  count = len(weight)
  return Batch(
    {},
    jnp.asarray(label),
    {"a": jnp.ones(count, bool), "b": jnp.asarray(mask_b)},
    jnp.asarray(weight),
    jnp.arange(count),
  )


# softmax = (1/4, 3/4), (1/2, 1/2)
LOGITS = jnp.asarray([[0.0, np.log(3.0)], [0.0, 0.0]])


def test_softmax_rows():
  found = objectives.row_losses(LOGITS, jnp.asarray([0, 1]))
  np.testing.assert_allclose(found, [LN4, LN2], rtol=1e-6)
  assert found.dtype == jnp.float32


def test_label_smoothing_mixes_with_the_uniform_distribution():
  # eps = .2, C = 2: targets .9/.1; row 0: .9 ln 4 + .1 ln(4/3)
  found = objectives.row_losses(LOGITS, jnp.asarray([0, 1]), label_smoothing=0.2)
  np.testing.assert_allclose(found, [0.9 * LN4 + 0.1 * np.log(4 / 3), LN2], rtol=1e-6)


def test_multilabel_rows_with_and_without_smoothing():
  logits, label = jnp.asarray([[np.log(3.0), 0.0]]), jnp.asarray([[1, 0]])
  right = -np.log(0.75)
  np.testing.assert_allclose(objectives.row_losses(logits, label), [(right + LN2) / 2], rtol=1e-6)
  # eps = .2: targets .9, .1
  smooth = 0.9 * right + 0.1 * LN4
  np.testing.assert_allclose(
    objectives.row_losses(logits, label, label_smoothing=0.2), [(smooth + LN2) / 2], rtol=1e-6
  )


def test_regression_rows_are_mean_squared_errors():
  np.testing.assert_allclose(
    objectives.row_losses(jnp.asarray([[1.0], [4.0]]), jnp.asarray([3.0, 4.0])), [4, 0]
  )
  np.testing.assert_allclose(
    objectives.row_losses(jnp.asarray([[1.0, 2.0]]), jnp.asarray([[3.0, 2.0]])), [2.0]
  )


def test_half_precision_logits_give_float32_losses():
  assert (
    objectives.row_losses(LOGITS.astype(jnp.bfloat16), jnp.asarray([0, 1])).dtype == jnp.float32
  )


def test_weighted_mean_never_reads_rows_of_weight_zero():
  values = jnp.asarray([1.0, jnp.nan, 4.0])
  np.testing.assert_allclose(objectives.weighted_mean(values, jnp.asarray([1.0, 0.0, 2.0])), 3.0)
  assert float(objectives.weighted_mean(values, jnp.zeros(3))) == 0.0


@pytest.mark.parametrize(
  "label, task",
  [
    (np.zeros(3, np.int32), "classification"),
    (np.zeros((3, 2), np.int32), "multilabel"),
    (np.zeros(3, np.float32), "regression"),
    (np.zeros((3, 2), np.float32), "regression"),
  ],
)
def test_task_is_read_off_the_label(label, task):
  assert objectives.task_of(label) == task


def test_task_of_no_array_is_refused():
  with pytest.raises(ValueError, match="got NoneType"):
    objectives.task_of(None)


def test_objectives_come_fused_first_and_own_losses_count_present_rows():
  outputs = Outputs(LOGITS, {"b": LOGITS, "a": LOGITS})
  given = make([0, 1], mask_b=(False, True))
  found = objectives.fused_and_unimodal(outputs, given, key=None, unknown=1)
  assert list(found) == ["fused", "a", "b"]
  np.testing.assert_allclose(
    list(found.values()), [(LN4 + LN2) / 2, (LN4 + LN2) / 2, LN2], rtol=1e-6
  )
  assert list(objectives.fused(outputs, given)) == ["fused"]
  assert list(objectives.unimodal(outputs, given)) == ["a", "b"]
  empty = objectives.unimodal(outputs, make([0, 1], mask_b=(False, False)))
  assert float(empty["b"]) == 0.0


def test_class_weights_weigh_rows_by_their_class():
  # class 0 counts 3: (3 ln 4 + 1 ln 2) / 4
  fn = objectives.supervised_losses(unimodal=False, class_weights=(3.0, 1.0))
  found = fn(Outputs(LOGITS), make([0, 1]))
  np.testing.assert_allclose(found["fused"], (3 * LN4 + LN2) / 4, rtol=1e-6)
  # A row's own weight multiplies.
  found = fn(Outputs(LOGITS), make([0, 1], weight=(0.5, 1.0)))
  np.testing.assert_allclose(found["fused"], (1.5 * LN4 + LN2) / 2.5, rtol=1e-6)


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match="at least one loss"):
    objectives.supervised_losses(fused=False, unimodal=False)
  with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got 1"):
    objectives.supervised_losses(label_smoothing=1.0)
  fn = objectives.supervised_losses(class_weights=(1.0, 2.0))
  with pytest.raises(ValueError, match="one integer class per row"):
    fn(Outputs(LOGITS), make([[0, 1], [1, 0]]))
  with pytest.raises(ValueError, match="no fused head"):
    objectives.fused(Outputs(None), make([0, 1]))
