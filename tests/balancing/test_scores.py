"""Scores: mean probability of the right answer over present rows."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing

LOGITS = {"a": jnp.log(jnp.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])), "b": jnp.zeros((3, 2))}
LABEL = jnp.array([1, 0, 0])


def test_mean_over_present_rows():
  mask = {"a": jnp.array([True, True, False]), "b": jnp.ones(3, bool)}
  got = balancing.scores(LOGITS, LABEL, mask)
  np.testing.assert_allclose([got["a"], got["b"]], [0.65, 0.5], rtol=1e-6)


def test_absent_from_the_batch_scores_zero():
  mask = {"a": jnp.zeros(3, bool), "b": jnp.ones(3, bool)}
  assert balancing.scores(LOGITS, LABEL, mask)["a"] == 0.0


def test_an_absent_row_is_never_read():
  bad = {**LOGITS, "a": LOGITS["a"].at[2].set(jnp.nan)}
  mask = {"a": jnp.array([True, True, False]), "b": jnp.ones(3, bool)}
  np.testing.assert_allclose(balancing.scores(bad, LABEL, mask)["a"], 0.65, rtol=1e-6)


def test_multi_label_uses_the_probability_of_the_right_value():
  logits = {"a": jnp.log(jnp.array([[3.0, 1.0]]))}  # sigmoid: .75, .5
  got = balancing.scores(logits, jnp.array([[0, 1]]))
  np.testing.assert_allclose(got["a"], (0.25 + 0.5) / 2, rtol=1e-6)


def test_regression_and_strangers_are_refused():
  with pytest.raises(ValueError, match="regression"):
    balancing.scores(LOGITS, jnp.ones(3))
  with pytest.raises(ValueError, match="modality 'b' not in mask; available: a"):
    balancing.scores(LOGITS, LABEL, {"a": jnp.ones(3, bool)})
  with pytest.raises(ValueError, match=r"\[3, 1, 1\]"):
    balancing.scores(LOGITS, jnp.ones((3, 1, 1), jnp.int32))
