"""BOGC on features: limits that are known exactly, and the factorised posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing
from mmfuse.balancing._bogc_laplace import aggregate_by_bogc_laplace, last_layers
from mmfuse.balancing._laplace import laplace_posterior, last_layer_draws

BATCH, CLASSES = 6, 3
WIDTH = {"a": 2, "b": 4}


def problem(seed=0, fused="concat"):
  """(stacked feature gradients, the extra arguments of a step)."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  features = {m: draw(BATCH, d) for m, d in WIDTH.items()}
  dense = lambda d: {"kernel": draw(d, CLASSES), "bias": draw(CLASSES)}
  heads = {m: dense(d) for m, d in WIDTH.items()}
  heads["fused"] = (
    dense(6) if fused == "concat" else {f"branch_{m}": dense(d) for m, d in WIDTH.items()}
  )
  label = jnp.asarray(rng.integers(0, CLASSES, BATCH), jnp.int32)
  layers = last_layers(heads, ["a", "b"])

  def losses(features):
    joined = jnp.concatenate([features["a"], features["b"]], 1)
    inputs = {"fused": joined, **features}
    target = jax.nn.one_hot(label, CLASSES)
    return jnp.stack(
      [
        -(jax.nn.log_softmax(inputs[k] @ layers[k][:, :-1].T + layers[k][:, -1][None]) * target)
        .sum(1)
        .mean()
        for k in ("fused", "a", "b")
      ]
    )

  extra = {
    "features": features,
    "label": label,
    "heads": heads,
    "key": jax.random.key(seed),
    "weight": jnp.ones(BATCH),
    "mask": {m: jnp.ones(BATCH, bool) for m in WIDTH},
  }
  return jax.jacobian(losses)(features), extra


@pytest.mark.parametrize("posterior", ["full", "kronecker", "diagonal"])
@pytest.mark.parametrize("fused", ["concat", pytest.param("sum", marks=pytest.mark.slow)])
def test_a_certain_last_layer_gives_the_plain_sum(posterior, fused):
  """gamma -> 0 leaves one last layer: equal variances, moments equal to the gradients."""
  stacked, extra = problem(fused=fused)
  rule = aggregate_by_bogc_laplace(
    3, prior_variance=1e-9, samples=4, posterior=posterior, rescale="sum"
  )
  got, state = rule.update(stacked, rule.init({}), **extra)
  for m in WIDTH:
    np.testing.assert_allclose(got[m], stacked[m].sum(0), atol=2e-5)
  np.testing.assert_allclose(state.weights, 0.5, atol=1e-5)


def test_the_less_certain_objective_counts_less():
  """Rows of b are seen by both objectives; a's own head is made very uncertain by its features."""
  stacked, extra = problem()
  small, wide = (
    aggregate_by_bogc_laplace(3, prior_variance=g, samples=64, power=1.0) for g in (1e-4, 1.0)
  )
  _, narrow = small.update(stacked, small.init({}), **extra)
  _, broad = wide.update(stacked, wide.init({}), **extra)
  assert narrow.log_evidence > broad.log_evidence + 5.0
  np.testing.assert_allclose(broad.weights[0] * 2 + broad.weights[1:].sum(), 2.0, atol=1e-5)


def test_absent_rows_and_modalities_are_left_out():
  stacked, extra = problem()
  gone = jnp.array([True, False, True, True, False, True])
  extra["mask"] = {"a": gone, "b": jnp.zeros(BATCH, bool)}
  rule = aggregate_by_bogc_laplace(3, samples=8)
  got, state = rule.update(stacked, rule.init({}), present=jnp.array([True, True, False]), **extra)
  assert not np.asarray(got["b"]).any()
  assert not np.asarray(got["a"])[~np.asarray(gone)].any() and np.asarray(got["a"]).any()
  assert np.isfinite(np.asarray(state.weights)).all() and state.weights[2] == 0


def test_draws_have_the_moments_of_the_posterior():
  rng = np.random.default_rng(3)
  features = jnp.asarray(rng.normal(size=(8, 1)), jnp.float32)
  label, layer = jnp.arange(8) % 2, jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)
  normals = jnp.asarray(rng.normal(size=(20_000, 2, 2)), jnp.float32)
  weight = jnp.ones(8).at[3].set(0.0)
  keep = np.arange(8) != 3
  mean, cov = laplace_posterior(
    layer, features[keep], label[keep], prior_variance=0.5, prior_mean=layer.reshape(-1)
  )
  draws = last_layer_draws(layer, features, label, normals, weight=weight, prior_variance=0.5)
  flat = np.asarray(draws).reshape(-1, 4)
  np.testing.assert_allclose(flat.mean(0), mean, atol=0.02)
  np.testing.assert_allclose(np.cov(flat.T), cov, atol=0.02)


def test_the_factorised_posterior_is_exact_for_equal_rows():
  """With one distinct row the curvature is a Kronecker product, and all three have its diagonal."""
  features = jnp.tile(jnp.array([[0.5, -1.0]]), (5, 1))
  label, layer = jnp.zeros(5, jnp.int32), jnp.array([[0.2, 0.1, 0.0], [-0.3, 0.4, 0.1]])
  normals = jax.random.normal(jax.random.key(0), (30_000, 2, 3))
  options = {"weight": jnp.ones(5), "prior_variance": 0.3}
  full, kron = (
    np.asarray(last_layer_draws(layer, features, label, normals, posterior=p, **options)).reshape(
      -1, 6
    )
    for p in ("full", "kronecker")
  )
  np.testing.assert_allclose(full.mean(0), kron.mean(0), atol=0.02)
  np.testing.assert_allclose(np.cov(full.T), np.cov(kron.T), atol=0.02)


def test_the_contract():
  def factory(num_objectives):
    rule = aggregate_by_bogc_laplace(num_objectives, samples=4)

    def update(updates, state, params=None, *, features, **rest):
      heads = {m: {"kernel": jnp.ones((3, CLASSES)), "bias": jnp.zeros(CLASSES)} for m in updates}
      heads["fused"] = {"kernel": jnp.ones((3 * len(updates), CLASSES)), "bias": jnp.zeros(CLASSES)}
      size = jax.tree.leaves(updates)[0].shape[1]
      seen = {m: jnp.full((size, 3), 0.5) for m in updates}
      rest |= {
        "label": jnp.arange(size) % CLASSES,
        "weight": jnp.ones(size),
        "mask": {m: jnp.ones(size, bool) for m in updates},
      }
      return rule.update(updates, state, params, features=seen, heads=heads, **rest)

    return balancing.Aggregator(rule.init, update)

  balancing.check_contract(
    factory, 3, params={"modality_0": jnp.ones((4, 3)), "modality_1": jnp.ones((4, 3))}
  )


@pytest.mark.parametrize(
  "options, words",
  [
    ({"samples": 0}, "samples"),
    ({"prior": "none"}, "prior"),
    ({"posterior": "exact"}, "posterior"),
  ],
)
def test_options_are_checked(options, words):
  with pytest.raises(ValueError, match=words):
    aggregate_by_bogc_laplace(3, **options)


def test_a_head_that_is_not_linear_is_refused():
  stacked, extra = problem()
  extra["heads"] = {**extra["heads"], "fused": {"gate": {}}}
  rule = aggregate_by_bogc_laplace(3)
  with pytest.raises(ValueError, match="concat or sum"):
    rule.update(stacked, rule.init({}), **extra)
