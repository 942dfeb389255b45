"""Discrepancies of two samples: by hand, what leaves them as they are, and what they can tell apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.objectives import jmmd_loss, mmd_loss, pkt_mmd_loss

RNG = np.random.default_rng(0)
X, Y = (jnp.asarray(RNG.normal(size=(7, 4)), jnp.float32) for _ in range(2))
W = jnp.asarray([1, 2, 0, 0.5, 1, 0, 3], jnp.float32)
SHIFTED = Y + 1.0


def _layers(source, target, weight=None, **more):
  return jmmd_loss([source, source[:, :2]], [target, target[:, :2]], weight, **more)


compiled = functools.partial(jax.jit, static_argnames="variant")
LOSSES = {"mmd": compiled(mmd_loss), "jmmd": compiled(_layers), "pkt": compiled(pkt_mmd_loss)}
each = pytest.mark.parametrize("name", LOSSES)


def test_two_rows_by_hand():
  """|x - y|^2 = 1, so b = 1 / 4 and k(x, y) = sum exp(-4 / 2^n)."""
  found = mmd_loss(jnp.asarray([[0.0]]), jnp.asarray([[1.0]]))
  kernel = sum(np.exp(-4.0 / 2**n) for n in range(5))
  assert float(found) == pytest.approx(10 - 2 * kernel, rel=1e-6)


def test_the_bandwidth_has_no_gradient():
  """d/dx of -2 sum exp(-(x - y)^2 / (2^n b)) at b = 1 / 4."""
  slope = jax.grad(lambda x: mmd_loss(x, jnp.asarray([[1.0]])))(jnp.asarray([[0.0]]))
  by_hand = sum(-2 * np.exp(-4.0 / 2**n) * 4.0 / 2**n * 2 for n in range(5))
  assert float(slope[0, 0]) == pytest.approx(by_hand, rel=1e-5)


def test_weights_by_hand():
  """Rows 0 and 1 of weight 3 and 1, row 2 of none."""
  x, y = np.asarray([0.0, 1.0]), np.asarray([2.0, 4.0])
  w = np.asarray([3.0, 1.0])
  z, u = np.concatenate([x, y]), np.concatenate([w, w])
  distance = np.square(z[:, None] - z[None])
  pairs = np.outer(u, u) * (1 - np.eye(4))
  b = (pairs * distance).sum() / pairs.sum() / 4
  gram = sum(np.exp(-distance / (b * 2**n)) for n in range(5))
  s = np.concatenate([w, -w]) / w.sum()
  rows = lambda v: jnp.asarray([*v, np.nan], jnp.float32)[:, None]
  found = mmd_loss(rows(x), rows(y), jnp.asarray([3.0, 1.0, 0.0]))
  assert float(found) == pytest.approx(s @ gram @ s, rel=1e-5)


@each
def test_invariants(name):
  loss = LOSSES[name]
  found = float(loss(X, SHIFTED))
  assert found > 1e-2
  assert float(loss(SHIFTED, X)) == pytest.approx(found, rel=1e-5)
  if name != "pkt":  # whose columns are the rows of the batch: only both samples together may turn
    assert float(loss(X[::-1], SHIFTED)) == pytest.approx(found, rel=1e-4)
  assert float(loss(X[::-1], SHIFTED[::-1])) == pytest.approx(found, rel=1e-5)
  assert float(loss(100 * X, 100 * SHIFTED)) == pytest.approx(found, rel=1e-4)
  if name == "mmd":  # two samples of the same rows, in whatever order
    turned = jnp.roll(X, 2, 0)
    assert abs(float(loss(X, turned))) < 1e-6
  assert abs(float(loss(X, X))) < 1e-6
  close = float(loss(X, X + 1e-3))
  assert -1e-6 <= close < 1e-3


@each
def test_rows_of_weight_0_are_not_read(name):
  loss = LOSSES[name]
  here = np.asarray(W) > 0
  dirty = [jnp.where(here[:, None], v, jnp.nan) for v in (X, SHIFTED)]
  value, grads = jax.value_and_grad(lambda x, y: loss(x, y, W), (0, 1))(*dirty)
  few = loss(X[here], SHIFTED[here], W[here])
  assert float(value) == pytest.approx(float(few), rel=1e-5)
  for g in grads:
    assert np.isfinite(g).all() and not np.any(g[~here]) and np.any(g[here])
  assert float(loss(X, SHIFTED, 5 * W)) == pytest.approx(float(value), rel=1e-5)
  assert float(loss(*dirty, jnp.zeros(7))) == 0.0


@each
def test_rows_that_all_coincide_are_nan_as_released_and_0_by_default(name):
  loss, same = LOSSES[name], jnp.full((4, 3), 0.3)
  value, grad = jax.value_and_grad(lambda x: loss(x, same))(same)
  assert float(value) == 0.0 and not np.any(grad)
  assert np.isnan(loss(same, same, variant="released"))


def test_layers_that_are_alike_but_not_together():
  """Each layer is distributed alike in both samples; only the joint kernel sees the pairing."""
  turned = jnp.roll(Y, 3, 0)
  assert abs(float(mmd_loss(Y, turned))) < 1e-6
  assert float(jmmd_loss([X, Y], [X, turned])) > 1e-2
  assert float(jmmd_loss([X], [SHIFTED])) == pytest.approx(float(mmd_loss(X, SHIFTED)), rel=1e-6)


def test_similarities_of_directions_alone():
  """Neither turning x nor its length, nor the width of the other; a row of zeros has no gradient."""
  turn, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
  found = float(pkt_mmd_loss(X, SHIFTED))
  assert float(pkt_mmd_loss(3 * X @ jnp.asarray(turn, jnp.float32), SHIFTED)) == pytest.approx(
    found, rel=1e-3
  )
  assert np.isfinite(pkt_mmd_loss(X, SHIFTED[:, :2]))
  empty = X.at[2].set(0.0)
  assert np.isfinite(jax.grad(lambda x: pkt_mmd_loss(x, SHIFTED))(empty)).all()


@each
def test_an_unknown_variant_is_refused(name):
  with pytest.raises(ValueError, match="unknown variant 'x'"):
    LOSSES[name](X, Y, variant="x")
