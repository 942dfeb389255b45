"""Gradient agreement on hand-made stacked gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import metrics, tree


def stacked():
  """K = 3 (fused, audio, image); encoders of 2 + 1 and 2 parameters, a head, a shared leaf."""
  return {
    "audio": {"b": jnp.array([[2.0], [-2.0], [0.0]]), "w": jnp.array([[1.0, 2], [3, 0], [0, 0]])},
    "heads": {"audio": jnp.full((3, 2), 100.0)},
    "image": {"w": jnp.array([[3.0, 4.0], [0, 0], [6, 8]])},
    "trunk": jnp.full((3, 4), 7.0),
  }


def owners(grads):
  return tree.owners_of(jax.tree.map(lambda g: g[0], grads), ("audio", "image"))


def test_by_hand():
  grads = stacked()
  out = metrics.conflict(grads, owners(grads))
  assert sorted(out) == sorted(
    f"{k}/{m}" for k in ("conflict", "cosine", "norm", "norm_fused") for m in ("audio", "image")
  )
  assert out["norm_fused/audio"] == pytest.approx(3.0)
  assert out["norm/audio"] == pytest.approx(np.sqrt(13))
  assert out["cosine/audio"] == pytest.approx((3 - 4) / (3 * np.sqrt(13)))
  assert out["conflict/audio"] == 1.0
  assert out["norm/image"] == pytest.approx(10.0)
  assert out["cosine/image"] == pytest.approx(1.0)
  assert out["conflict/image"] == 0.0


def test_equals_the_cosine_of_the_rows_under_jit():
  rng = np.random.default_rng(0)
  grads = jax.tree.map(lambda g: rng.normal(size=g.shape).astype(np.float32), stacked())
  tags = owners(grads)
  out = jax.jit(lambda g: metrics.conflict(g, tags))(grads)
  for row, m in ((1, "audio"), (2, "image")):
    fused, own = (jax.tree.map(lambda g, k=k: jnp.asarray(g[k]), grads[m]) for k in (0, row))
    assert out[f"cosine/{m}"] == pytest.approx(float(metrics.cosine(fused, own)), abs=1e-6)
    assert out[f"conflict/{m}"] == float(out[f"cosine/{m}"] < 0)


def test_zero_rows_have_cosine_zero_and_no_conflict():
  grads = jax.tree.map(jnp.zeros_like, stacked())
  out = metrics.conflict(grads, owners(grads))
  assert all(v == 0 for v in out.values())
  assert metrics.cosine({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}) == 0


def test_names_give_the_order_and_missing_objectives_are_left_out():
  grads = jax.tree.map(lambda g: g[jnp.array([2, 0])], stacked())  # image, then fused
  out = metrics.conflict(grads, owners(grads), names=("image", "fused"))
  assert out["cosine/image"] == pytest.approx(1.0)
  assert out["norm_fused/audio"] == pytest.approx(3.0)
  assert "cosine/audio" not in out and "norm/audio" not in out
  with pytest.raises(ValueError, match="over 2 objectives, but 3 are named: fused, audio, image"):
    metrics.conflict(grads, owners(grads))


def test_own_objectives_alone_have_norms_only():
  grads = jax.tree.map(lambda g: g[1:], stacked())
  out = metrics.conflict(grads, owners(grads), names=("audio", "image"))
  assert sorted(out) == ["norm/audio", "norm/image"]


def test_cosine_is_within_one_and_ignores_scale():
  a = {"w": jnp.array([1e-3, 3e-3]), "b": jnp.array(2e-3)}
  assert metrics.cosine(a, jax.tree.map(lambda x: -1e4 * x, a)) == pytest.approx(-1.0)
  assert metrics.cosine(a, a) <= 1.0
