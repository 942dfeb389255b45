"""The Gaussian head: its equations, the draw in training, rows that nobody knows, maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.fusion import Gaussian, GaussianHead, LateFusion, draw_gaussian

ROWS = 6
MASK = {
  "a": jnp.asarray([True, True, False, True, True, False]),
  "b": jnp.asarray([True, False, True, True, False, False]),  # the last row has nothing
}
FEATURES = {
  m: jnp.where(MASK[m][:, None], jax.random.normal(jax.random.key(i), (ROWS, 2 + i)), 0.0)
  for i, m in enumerate("ab")
}


def variables(module=GaussianHead(), features=FEATURES, mask=MASK):
  """With parameters and statistics none of which is 0 or 1."""
  found = module.init(jax.random.key(0), features, mask, num_classes=3, train=False)
  leaves, tree = jax.tree.flatten(found)
  rng = np.random.default_rng(0)
  drawn = [jnp.asarray(rng.uniform(0.2, 0.9, x.shape), x.dtype) for x in leaves]
  return jax.tree.unflatten(tree, drawn)


def apply(given, features=FEATURES, train=True, key=1, module=GaussianHead()):
  """(logits, mu, logvar, statistics)."""
  (logits, beside), new = module.apply(
    given,
    features,
    MASK,
    num_classes=3,
    train=train,
    rngs={"dropout": jax.random.key(key)},
    mutable=["batch_stats"],
  )
  return logits, beside["mu"], beside["logvar"], new.get("batch_stats")


def by_hand(given, name, train):
  """BN(W h + b) in NumPy, over the rows that have something, or from running statistics."""
  params = jax.tree.map(np.asarray, given["params"]["gaussian"])
  h = np.concatenate([FEATURES["a"], FEATURES["b"]], -1)
  x = h @ params[name]["kernel"] + params[name]["bias"]
  rows = np.asarray(MASK["a"] | MASK["b"])
  stats = given["batch_stats"]["gaussian"][f"{name}_norm"]
  mean = x[rows].mean(0) if train else np.asarray(stats["mean"])
  var = x[rows].var(0) if train else np.asarray(stats["var"])
  norm = params[f"{name}_norm"]
  return (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]


@pytest.mark.parametrize("train", [True, False])
def test_the_equations(train):
  given = variables()
  logits, mu, logvar, _ = apply(given, train=train)
  np.testing.assert_allclose(mu, by_hand(given, "mean", train), rtol=1e-4, atol=1e-5)
  want = by_hand(given, "logvar", train)
  np.testing.assert_allclose(logvar[:-1], want[:-1], rtol=1e-4, atol=1e-5)
  assert not logvar[-1].any()  # of a row that has nothing
  out = given["params"]["out"]
  plain = mu @ out["kernel"] + out["bias"][None]
  assert (np.abs(logits - plain).max() < 1e-5) == (not train)


def test_training_draws_around_the_mean_with_its_deviation():
  given = variables()
  logits = jax.vmap(lambda key: drawn(given, key))(jnp.arange(4000))
  _, mu, logvar, _ = apply(given)
  out = given["params"]["out"]
  mean = mu @ out["kernel"] + out["bias"][None]
  var = jnp.exp(logvar) @ jnp.square(out["kernel"])
  np.testing.assert_allclose(logits.mean(0), mean, atol=0.15)
  np.testing.assert_allclose(logits.var(0), var, rtol=0.12)


def drawn(given, key):
  return GaussianHead().apply(
    given,
    FEATURES,
    MASK,
    num_classes=3,
    train=True,
    rngs={"dropout": jax.random.key(key)},
    mutable=["batch_stats"],
  )[0][0]


def test_without_variance_training_is_the_mean_and_prediction_never_draws():
  given = variables()
  norm = given["params"]["gaussian"]["logvar_norm"]
  still = {"scale": 0 * norm["scale"], "bias": 0 * norm["bias"] - 40.0}
  params = {**given["params"], "gaussian": {**given["params"]["gaussian"], "logvar_norm": still}}
  logits, mu, _, _ = apply({**given, "params": params})
  out = params["out"]
  rows = slice(0, -1)  # the last one, which has nothing, has variance 1
  np.testing.assert_allclose(
    logits[rows], (mu @ out["kernel"] + out["bias"][None])[rows], atol=1e-5
  )
  first, second = (apply(given, train=False, key=k)[0] for k in (1, 2))
  np.testing.assert_array_equal(first, second)
  assert np.abs(apply(given, key=1)[0] - apply(given, key=2)[0]).max() > 1e-2


def test_one_row_that_counts_is_finite_beside_one_that_has_nothing():
  mask = {"a": jnp.asarray([True, False]), "b": jnp.zeros(2, bool)}
  features = {m: 1e3 * mask[m][:, None] * jnp.ones((2, 2)) for m in mask}
  module = GaussianHead()
  given = variables(module, features, mask)

  def loss(params):
    (logits, beside), _ = module.apply(
      {**given, "params": params},
      features,
      mask,
      num_classes=3,
      train=True,
      rngs={"dropout": jax.random.key(0)},
      mutable=["batch_stats"],
    )
    return jnp.square(logits).sum() + jnp.exp(beside["logvar"]).sum()

  value, grads = jax.value_and_grad(loss)(given["params"])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, grads)))


def test_a_map_is_a_row_a_position():
  module = Gaussian(3)
  maps = jax.random.normal(jax.random.key(0), (4, 2, 5, 6))
  flat, rows = maps.reshape(-1, 6), jnp.ones(4, bool)
  given = module.init(jax.random.key(1), maps, rows, train=False)
  run = lambda h, rows: module.apply(given, h, rows, train=True, mutable=["batch_stats"])
  (mean, logvar), stats = run(maps, rows)
  (flat_mean, flat_logvar), flat_stats = run(flat, jnp.ones(40, bool))
  np.testing.assert_allclose(mean.reshape(-1, 3), flat_mean, atol=1e-5)
  np.testing.assert_allclose(logvar.reshape(-1, 3), flat_logvar, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, flat_stats)


def test_a_noise_of_zero_is_the_mean():
  mean, logvar = jnp.asarray([1.0, 2.0]), jnp.asarray([0.0, 2 * np.log(3.0)])
  np.testing.assert_allclose(draw_gaussian(mean, logvar, jnp.asarray([0.0, 2.0])), [1.0, 8.0])


def test_in_a_model_both_are_in_aux_and_a_width_is_kept():
  from mmfuse.encoders import MLP

  model = LateFusion({m: MLP(3, ()) for m in "ab"}, 3, GaussianHead(5))
  inputs = {m: jnp.ones((4, 2)) for m in "ab"}
  mask = {m: jnp.ones(4, bool) for m in "ab"}
  given = model.init(jax.random.key(0), inputs, mask)
  features, stats = model.encode(given, inputs, mask, train=False)
  outputs, _ = model.heads({**given, "batch_stats": stats}, features, mask, train=False)
  assert sorted(outputs.aux) == ["logvar", "mu"] and outputs.aux["mu"].shape == (4, 5)
  with pytest.raises(ValueError, match="width must be at least 1, got 0"):
    GaussianHead(0)
