"""The fused heads by hand and by their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import fusion

FEATURES = {
  "a": jax.random.normal(jax.random.key(0), (4, 3)),
  "b": jax.random.normal(jax.random.key(1), (4, 2)),
  "c": jax.random.normal(jax.random.key(2), (4, 5)),
}
EVERYBODY = {m: jnp.ones(4, bool) for m in FEATURES}


def _fuse(module, features, mask):
  """(logits, split, params) with random biases, so that nothing is hidden by zeros."""

  @jax.jit
  def run(features, mask):
    params = module.init(jax.random.key(3), features, mask, num_classes=2, train=False)["params"]
    params = jax.tree.map(
      lambda p: p + 0.1 * jnp.sin(jnp.arange(1.0, p.size + 1)).reshape(p.shape), params
    )
    out, split = module.apply({"params": params}, features, mask, num_classes=2, train=False)
    return out, split, params

  out, split, params = run(features, mask)
  return np.asarray(out), split, jax.tree.map(np.asarray, params)


def _dense(p, x):
  return np.asarray(x) @ p["kernel"] + p["bias"]


def test_split_concat_by_hand():
  features = {"b": jnp.array([[2.0]]), "a": jnp.array([[1.0, 3.0]])}
  kernel = jnp.array([[1.0, 0.0], [0.0, 1.0], [5.0, -1.0]])  # rows of a, a, b
  split = fusion.split_concat(features, kernel, jnp.array([2.0, 4.0]))
  np.testing.assert_allclose(split["a"], [[1.0 + 1.0, 3.0 + 2.0]])
  np.testing.assert_allclose(split["b"], [[10.0 + 1.0, -2.0 + 2.0]])
  with pytest.raises(ValueError, match=r"has 2 rows, but the features \[2, 1\] need 3"):
    fusion.split_concat(features, kernel[:2], jnp.zeros(2))


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_concat_and_sum_by_their_equations(names):
  features, mask = {m: FEATURES[m] for m in names}, {m: EVERYBODY[m] for m in names}
  out, split, p = _fuse(fusion.Concat(), features, mask)
  joined = np.concatenate([features[m] for m in names], -1)
  np.testing.assert_allclose(out, _dense(p, joined), atol=1e-5)
  np.testing.assert_allclose(sum(split.values()), out, atol=1e-5)
  alone = fusion.split_concat(features, p["kernel"], p["bias"])
  np.testing.assert_allclose(split[names[-1]], alone[names[-1]], atol=1e-6)

  out, split, p = _fuse(fusion.Sum(), features, mask)
  for m in names:
    np.testing.assert_allclose(split[m], _dense(p[f"branch_{m}"], features[m]), atol=1e-5)
  np.testing.assert_allclose(sum(split.values()), out, atol=1e-5)


@pytest.mark.parametrize("names,by", [("ab", None), ("ab", "b"), ("abc", "b")])
def test_gated_and_film_by_their_equations(names, by):
  features, mask = {m: FEATURES[m] for m in names}, {m: EVERYBODY[m] for m in names}
  lead = by or "a"
  rest = np.concatenate([features[m] for m in names if m != lead], -1)
  out, split, p = _fuse(fusion.Gated(by, width=4), features, mask)
  assert split is None
  gate = 1 / (1 + np.exp(-_dense(p["gate"], features[lead])))
  np.testing.assert_allclose(out, _dense(p["out"], gate * _dense(p["project"], rest)), atol=1e-5)

  out, split, p = _fuse(fusion.FiLM(by), features, mask)
  assert split is None
  gamma, beta = np.split(_dense(p["film"], features[lead]), 2, -1)
  np.testing.assert_allclose(out, _dense(p["out"], gamma * rest + beta), atol=1e-5)


def test_an_absent_leader_leaves_the_others_as_they_are():
  mask = {**EVERYBODY, "a": jnp.array([True, False, True, False])}
  features = {**FEATURES, "a": jnp.where(mask["a"][:, None], FEATURES["a"], 0.0)}
  rest = np.concatenate([features["b"], features["c"]], -1)[1::2]
  out, _, p = _fuse(fusion.Gated(width=4), features, mask)
  np.testing.assert_allclose(out[1::2], _dense(p["out"], _dense(p["project"], rest)), atol=1e-5)
  assert not np.allclose(
    out[::2],
    _fuse(fusion.Gated(width=4), features, {**mask, "a": jnp.zeros(4, bool)})[0][::2],
    atol=1e-4,
  )
  out, _, p = _fuse(fusion.FiLM(), features, mask)
  np.testing.assert_allclose(out[1::2], _dense(p["out"], rest), atol=1e-5)


def test_one_modality_alone_is_neither_gated_nor_modulated():
  features, mask = {"a": FEATURES["a"]}, {"a": EVERYBODY["a"]}
  out, _, p = _fuse(fusion.Gated(width=4), features, mask)
  assert set(p) == {"project", "out"}
  np.testing.assert_allclose(out, _dense(p["out"], _dense(p["project"], features["a"])), atol=1e-5)
  out, _, p = _fuse(fusion.FiLM(), features, mask)
  assert set(p) == {"out"}
  np.testing.assert_allclose(out, _dense(p["out"], features["a"]), atol=1e-5)


def test_gated_has_the_width_of_the_authors():
  shapes = jax.eval_shape(
    lambda: fusion.Gated().init(jax.random.key(0), FEATURES, EVERYBODY, num_classes=2, train=False)
  )
  assert shapes["params"]["out"]["kernel"].shape == (512, 2)


def test_an_unknown_leader_is_refused():
  with pytest.raises(ValueError, match="modality 'd' not in features; available: a, b, c"):
    _fuse(fusion.FiLM(by="d"), FEATURES, EVERYBODY)
