"""Distillation of features and logits, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.objectives import feature_distillation, logit_distillation

Z = jnp.asarray([[0.0, 0.0], [2.0, -1.0]])
T = jnp.asarray([[np.log(3.0), 0.0], [1.0, 1.0]], jnp.float32)


def test_features_by_hand():
  student = jnp.asarray([[1.0, 2.0], [5.0, 5.0]])
  teacher = jnp.asarray([[1.0, 0.0], [0.0, 0.0]])
  # Row 0: (0 + 4) / 2; row 1 does not count.
  assert float(feature_distillation(student, teacher, jnp.asarray([1.0, 0.0]))) == 2.0
  assert float(feature_distillation(student, student, jnp.ones(2))) == 0.0
  loss = lambda s, t: feature_distillation(s, t, jnp.ones(2))
  grads = jax.grad(loss, (0, 1))(student, teacher)
  assert float(abs(grads[0]).max()) > 0 and float(abs(grads[1]).max()) == 0


def test_logits_by_hand():
  assert float(logit_distillation(Z, T)) == pytest.approx((np.log(3) ** 2 / 2 + 5 / 2) / 2)
  # Row 0: q = (3/4, 1/4), p = (1/2, 1/2).
  first = jnp.asarray([1.0, 0.0])
  by_hand = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
  assert float(logit_distillation(Z, T, first, kind="kl")) == pytest.approx(by_hand, rel=1e-6)
  doubled = logit_distillation(2 * Z, 2 * T, first, kind="kl", temperature=2.0)
  assert float(doubled) == pytest.approx(4 * by_hand, rel=1e-6)


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_the_teacher_is_a_constant_and_rows_of_weight_0_are_not_read(kind):
  weight = jnp.asarray([0.0, 2.0])
  loss = lambda z, t: logit_distillation(z, t, weight, kind=kind, temperature=3.0)
  dirty = Z.at[0].set(jnp.nan)
  value, (own, its) = jax.value_and_grad(loss, (0, 1))(dirty, T)
  alone = logit_distillation(Z[1:], T[1:], kind=kind, temperature=3.0)
  assert float(value) == pytest.approx(float(alone), rel=1e-6)
  assert not np.any(its) and np.any(own[1])


def test_labels_that_are_told_one_by_one():
  """[B, L, 2]: the mean over labels of the divergence of Bernoulli variables."""
  z, t = jnp.asarray([[0.3, -2.0, 1.0]]), jnp.asarray([[1.0, 0.5, -1.0]])
  stacked = lambda v: jnp.stack([jnp.zeros_like(v), v], axis=-1)
  p, q = (1 / (1 + np.exp(-np.asarray(v, np.float64))) for v in (z, t))
  by_hand = (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).mean()
  found = logit_distillation(stacked(z), stacked(t), kind="kl")
  assert float(found) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
  "options, message",
  [({"kind": "x"}, "unknown kind 'x'"), ({"temperature": 0.0}, "temperature must be positive")],
)
def test_bad_settings_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    logit_distillation(Z, T, **options)
