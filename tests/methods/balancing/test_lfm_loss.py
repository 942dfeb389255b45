"""LFM's loss against numbers computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.core import Batch, Outputs
from mmfuse.methods.balancing import _lfm_loss

P, Q = np.array([0.25, 0.75]), np.array([0.5, 0.5])
Z1, Z2 = jnp.log(jnp.asarray([P])), jnp.log(jnp.asarray([Q]))
HERE = jnp.ones(1, bool)


def kl(p, q):
  return np.sum(p * np.log(p / q))


M = (P + Q) / 2
WANT = 0.5 * (kl(M, P) + kl(M, Q))


def test_divergence_by_hand_is_the_reverse_of_the_usual_one():
  np.testing.assert_allclose(_lfm_loss.reverse_js(Z1, Z2), [WANT], rtol=1e-5)
  np.testing.assert_allclose(_lfm_loss.reverse_js(Z2, Z1), [WANT], rtol=1e-5)
  assert abs(WANT - 0.5 * (kl(P, M) + kl(Q, M))) > 1e-4
  np.testing.assert_allclose(_lfm_loss.reverse_js(Z1, Z1 + 3.0), [0.0], atol=1e-6)


def test_divergence_of_saturated_logits_is_finite():
  far = jnp.asarray([[300.0, -300.0]])
  value, grad = jax.value_and_grad(lambda z: _lfm_loss.reverse_js(z, -far).sum())(far)
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_alignment_averages_pairs_that_some_row_has():
  logits = {"a": Z1, "b": Z2, "c": Z2}
  here = dict.fromkeys(logits, HERE)
  np.testing.assert_allclose(
    _lfm_loss.alignment(logits, here, jnp.ones(1)), 2 * WANT / 3, rtol=1e-5
  )
  np.testing.assert_allclose(
    _lfm_loss.alignment(logits, {**here, "c": ~HERE}, jnp.ones(1)), WANT, rtol=1e-5
  )
  assert float(_lfm_loss.alignment({"a": Z1}, {"a": HERE}, jnp.ones(1))) == 0.0


def test_objective_weighs_both_terms():
  objective = _lfm_loss.lfm_objective(0.25)
  outputs = Outputs(Z2, {}, {}, {"split_logits": {"a": Z1, "b": Z2}})
  given = Batch({}, jnp.asarray([1]), {"a": HERE, "b": HERE}, jnp.ones(1), jnp.arange(1))
  memory = objective.init(given, outputs)
  assert {k: (v.dtype.name, v.weak_type) for k, v in memory.items()} == {
    "weights": ("float32", False),
    "rate": ("float32", False),
  }
  found, after = objective.apply(outputs, given, memory, key=None)
  np.testing.assert_allclose(found["fused"], 2 * 0.75 * np.log(2), rtol=1e-5)
  np.testing.assert_allclose(found["alignment"], 2 * 0.25 * WANT, rtol=1e-5)
  assert after is memory


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match=r"must lie in \[0.05, 0.95\], got 1"):
    _lfm_loss.lfm_objective(1.0)
  given = Batch({}, jnp.ones((1, 2), jnp.int32), {"a": HERE}, jnp.ones(1), jnp.arange(1))
  with pytest.raises(ValueError, match="got a multilabel task"):
    _lfm_loss.lfm_losses(Outputs(Z1, {"a": Z1}), given)
