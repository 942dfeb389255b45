"""The losses by hand, of every task, and where nothing is there to learn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.missing import _unseen_losses as losses

ONE = jnp.ones(2)
HERE = {"a": jnp.asarray([True, False]), "b": jnp.asarray([False, True])}


def test_smoothing_spreads_over_the_wrong_classes():
  z = jnp.asarray([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
  log_p = np.asarray(jax.nn.log_softmax(z))
  want = -(0.8 * log_p[0, 0] + 0.1 * log_p[0, 1] + 0.1 * log_p[0, 2])
  found = losses.smoothed_loss(z, jnp.asarray([0, 1]), jnp.asarray([1.0, 0.0]), 0.2)
  assert float(found) == pytest.approx(want, rel=1e-6)
  labels = jnp.asarray([[1, 0, 1], [0, 0, 0]])
  p = np.asarray(jax.nn.sigmoid(z[0]))
  t = np.asarray([0.8, 0.2, 0.8])
  want = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
  found = losses.smoothed_loss(z, labels, jnp.asarray([1.0, 0.0]), 0.2)
  assert float(found) == pytest.approx(want, rel=1e-6)
  found = losses.smoothed_loss(z, jnp.asarray([[1.0, 0, 1], [0, 0, 0]]), ONE, 0.2)
  assert float(found) == pytest.approx(1 / 6, rel=1e-6)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_a_divergence_is_zero_at_the_pseudo_label_alone(task):
  z = jnp.asarray([[2.0, 0.0, -1.0], [0.5, 0.1, 0.3]])
  pseudo = losses.predicted(z, task)
  np.testing.assert_allclose(losses.divergence(pseudo, z, task), 0, atol=1e-6)
  assert (np.asarray(losses.divergence(pseudo, z[::-1], task)) > 0.01).all()
  sure = jnp.asarray([[1.0, 0.0, 0.0]] * 2)  # 0 log 0 = 0
  assert np.isfinite(losses.divergence(sure, z, task)).all()
  assert np.isfinite(jax.grad(lambda z: losses.divergence(sure, z, task).sum())(z)).all()


def test_pseudo_labels_by_hand():
  z = jnp.zeros((2, 2))
  pseudo = {"a": jnp.asarray([[1.0, 0.0], [0.5, 0.5]]), "b": jnp.asarray([[0.5, 0.5], [0.0, 1.0]])}
  weight = jnp.asarray([1.0, 3.0])
  found = losses.pseudo_loss(z, pseudo, HERE, weight)
  assert float(found) == pytest.approx(np.log(2), rel=1e-6)  # (1 log 2 + 3 log 2) / 4
  every = losses.pseudo_loss(z, pseudo, dict.fromkeys("ab", jnp.ones(2, bool)), weight)
  assert float(every) == pytest.approx(np.log(2), rel=1e-6)  # a uniform one adds nothing here


def test_a_modality_that_no_row_has():
  z, pseudo = jnp.zeros((2, 2)), dict.fromkeys("ab", jnp.asarray([[1.0, 0.0]] * 2))
  mask = {"a": jnp.ones(2, bool), "b": jnp.zeros(2, bool)}
  for variant, finite in (("guarded", True), ("released", False)):
    loss = lambda z, variant=variant: losses.pseudo_loss(z, pseudo, mask, ONE, variant=variant)
    assert bool(jnp.isfinite(loss(z))) == finite
    assert np.isfinite(jax.grad(loss)(z)).all()
  empty = losses.pseudo_loss(z, pseudo, dict.fromkeys("ab", jnp.zeros(2, bool)), jnp.zeros(2))
  assert float(empty) == 0
  with pytest.raises(ValueError, match="variant must be one of guarded, released; got 'x'"):
    losses.pseudo_loss(z, pseudo, mask, ONE, variant="x")


def test_the_best_pseudo_label_by_hand():
  every = dict.fromkeys("ab", jnp.ones(2, bool))
  pseudo = {"a": jnp.asarray([[0.6, 0.4], [0.5, 0.5]]), "b": jnp.asarray([[0.5, 0.5], [0.1, 0.9]])}
  choose = lambda label, mask=every: losses.best_pseudo(pseudo, label, mask).tolist()
  assert choose(jnp.asarray([0, 1])) == [0, 1]
  assert choose(jnp.asarray([0, 1]), {"a": ~every["a"], "b": every["b"]}) == [1, 1]
  assert choose(jnp.asarray([0, 1]), dict.fromkeys("ab", ~every["a"])) == [0, 0]
  assert choose(jnp.asarray([[1, 1], [1, 0]])) == [1, 0]  # labels of 0 and 1
  assert choose(jnp.asarray([[0, 0], [0, 0]])) == [0, 0]
  assert choose(jnp.asarray([[0.5, 0.6], [0.0, 1.0]])) == [1, 1]  # values: the nearest


def test_alignment_by_hand():
  tokens = jnp.asarray([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
  latent = {"a": jnp.asarray([[1.0, 1.0], [9.0, 9.0]]), "b": jnp.asarray([[9.0, 9.0], [2.0, 2.0]])}
  label = jnp.asarray([0, 2])
  weight = jnp.asarray([1.0, 3.0])
  found = losses.alignment_loss(latent, tokens, label, HERE, weight, "classification")
  assert float(found) == pytest.approx((1 * 1 + 3 * 2.5) / 4)  # means over d
  found = losses.alignment_loss(latent, tokens, label * 0.5, HERE, weight, "regression")
  assert float(found) == pytest.approx((1 * 2 + 3 * 4) / 4)  # sums, to the nearest token
  nobody = dict.fromkeys("ab", jnp.zeros(2, bool))
  assert float(losses.alignment_loss(latent, tokens, label, nobody, ONE, "classification")) == 0
