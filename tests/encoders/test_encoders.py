"""Every encoder: shapes of any size, absent rows, empty batches, formulations, own behaviour."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.core import Sequence

SIZES = (1, 2, 3, 5, 8, 28, 127, 128, 257, 512)
SMALL = {  # name: (module, shape of one example)
  "mlp": (encoders.MLP(4, (8,), norm="batch", dropout=0.3), (3, 2)),
  "conv1d": (encoders.Conv1D(4, (3, 5), norm="batch"), (6, 2)),
  "conv2d": (encoders.Conv2D(4, (3, 4), norm="batch"), (5, 4, 2)),
  "lenet": (encoders.LeNet(2, 1), (6, 5)),
  "lenet_cells": (encoders.LeNet(2, 1), (8, 4)),
  "chain": (encoders.Chain((encoders.MLP(5), encoders.MLP(4, (3,), "batch", linear=True))), (3, 2)),
  "frames": (encoders.Frames(encoders.Conv2D(4, (4,), norm="batch")), (2, 4, 4, 1)),
  "gru": (encoders.GRU(4), (3, 2)),
  "lstm": (encoders.LSTM(4, "mean"), (3, 2)),
  "transformer": (encoders.Transformer(4, 1, 2), (3, 2)),
  "embedding": (encoders.Embedding(7, 4, 5, norm="batch"), (3,)),
}
MASK = jnp.array([True, False, True, True])


def _data(name, seed=0):
  shape = (4, *SMALL[name][1])
  if name == "embedding":
    return jax.random.randint(jax.random.key(seed), shape, 0, 7)
  return jax.random.normal(jax.random.key(seed), shape)


def _init(module, x, mask=MASK):
  init = lambda x, mask: module.init(jax.random.key(1), x, mask, train=False)
  return jax.jit(init)(x, mask)


def _features(module, shape, dtype=jnp.float32):
  """Shapes of features and of the gradient, without compiling anything."""
  x, mask = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape[:1], bool)

  def both(x, mask):
    variables = module.init(jax.random.key(0), x, mask, train=False)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
      h, _ = module.apply(
        {"params": params, **rest},
        x,
        mask,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(1)},
      )
      return jnp.sum(h), h

    return jax.grad(loss, has_aux=True)(variables["params"])[1]

  return jax.eval_shape(both, x, mask).shape


@pytest.mark.parametrize("n", SIZES)
def test_default_encoders_work_from_1_to_512_per_axis(n):
  for shape in ((2, n), (2, n, 3), (2, n, n, 3), (2, n, 1, 1), (2, 1, n, 1), (2, 2, n, n, 1)):
    module = encoders.default_encoder(shape, jnp.float32)
    assert _features(module, shape) == (shape[0], module.features)
  assert _features(encoders.Embedding(9), (2, n), jnp.int32) == (2, 64)


@pytest.mark.parametrize("name", ["lenet", "resnet18", "gru", "transformer", "conv2d", "lstm"])
@pytest.mark.parametrize("n", [1, 2, 33, 512])
def test_named_encoders_work_from_1_to_512_per_axis(name, n):
  shape = (2, n, 2) if name in ("gru", "lstm", "transformer") else (2, n, n)
  module = encoders.by_name(name, shape, jnp.float32)
  assert _features(module, shape) == (2, module.features)


def test_the_cost_of_conv2d_stays_sane():
  def operations(n):
    module, mask = encoders.Conv2D(), jax.ShapeDtypeStruct((1,), bool)
    x = jax.ShapeDtypeStruct((1, n, n, 3), jnp.float32)
    variables = jax.eval_shape(
      lambda x, mask: module.init(jax.random.key(0), x, mask, train=False), x, mask
    )
    apply = jax.jit(lambda v, x, mask: module.apply(v, x, mask, train=False))
    return apply.lower(variables, x, mask).cost_analysis()["flops"]

  assert operations(512) < 8 * operations(64)  # 64 times the pixels


@pytest.mark.parametrize("name", sorted(SMALL))
def test_absent_rows_are_not_seen_and_an_empty_batch_is_harmless(name):
  module, x = SMALL[name][0], _data(name)
  garbage = jnp.where(MASK.reshape(-1, *(1,) * (x.ndim - 1)), x, 6 if name == "embedding" else -1e4)
  variables = _init(module, x)
  rest = {k: v for k, v in variables.items() if k != "params"}

  @jax.jit
  def run(x, mask):
    def loss(params):
      h, new = module.apply(
        {"params": params, **rest},
        x,
        mask,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(2)},
      )
      return jnp.sum(jnp.where(mask.reshape(-1, 1), jnp.sin(h), 0.0)), (h, new)

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])

  (value, (h, new)), grad = run(x, MASK)
  (_, (other, other_new)), other_grad = run(garbage, MASK)
  assert h.shape == (4, module.features)
  np.testing.assert_array_equal(h[MASK], other[MASK])
  chex.assert_trees_all_equal((new, grad), (other_new, other_grad))
  assert jnp.isfinite(value)
  if rest:
    with pytest.raises(AssertionError):  # the present rows did move the statistics
      chex.assert_trees_all_close(new["batch_stats"], rest["batch_stats"], atol=1e-4)

  (_, (h, new)), grad = run(jnp.zeros_like(x), jnp.zeros(4, bool))
  chex.assert_tree_all_finite((h, grad))
  if rest:
    chex.assert_trees_all_equal(new["batch_stats"], rest["batch_stats"])


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "lenet"])
def test_formulations_agree_in_values_gradients_and_statistics(name):
  module, x = SMALL[name][0], _data(name)
  variables = _init(module, x)

  def run(formulation):
    def loss(params):
      h, new = module.clone(formulation=formulation).apply(
        {**variables, "params": params}, x, MASK, train=True, mutable=["batch_stats"]
      )
      return jnp.sum(jnp.sin(h)), (h, new)

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

  chex.assert_trees_all_close(run("lax"), run("patches"), atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "conv1d", "conv2d", "lenet"])
def test_no_bias_before_batch_norm(name):
  module, x = SMALL[name][0], _data(name)
  params = jax.eval_shape(lambda x: _init(module, x), x)["params"]
  layers = [k for k in params if k.startswith(("dense", "conv"))]
  assert layers
  assert all(set(params[k]) == {"kernel"} for k in layers)


def test_a_linear_last_layer_has_no_norm_and_no_relu_and_a_chain_is_its_stages():
  x, mask = jax.random.normal(jax.random.key(0), (5, 3)), jnp.ones(5, bool)
  first, second = encoders.MLP(4, (), "none"), encoders.MLP(2, (3,), "batch", linear=True)
  chain = encoders.Chain((first, second))
  params = _init(chain, x, mask)
  stages = params["params"]
  assert set(stages) == {"stages_0", "stages_1"}
  assert set(stages["stages_1"]) == {"dense0", "norm0", "dense1"}
  assert set(stages["stages_1"]["dense1"]) == {"kernel", "bias"}
  h = first.apply({"params": stages["stages_0"]}, x, mask, train=False)
  own = {k: v["stages_1"] for k, v in params.items()}
  y = second.apply(own, h, mask, train=False)
  np.testing.assert_allclose(chain.apply(params, x, mask, train=False), y, atol=1e-6)
  assert (np.asarray(y) < 0).any()
  with pytest.raises(ValueError, match="a chain needs at least one stage"):
    encoders.Chain(())


def test_mlp_by_hand():
  module = encoders.MLP(1, (2,), norm="none")
  first = {"kernel": jnp.array([[1.0, -1.0], [2.0, 1.0]]), "bias": jnp.array([0.0, 1.0])}
  params = {"dense0": first, "dense1": {"kernel": jnp.array([[2.0], [3.0]]), "bias": -jnp.ones(1)}}
  h = module.apply({"params": params}, jnp.array([[[3.0], [-1.0]]]), MASK[:1], train=False)
  np.testing.assert_allclose(h, [[1.0]])  # ReLU([1, -3]) = [1, 0]; 2 * 1 - 1


def test_lenet_has_the_sizes_of_i2m2():
  table = ((28, 3, 3, 24), (112, 3, 5, 96), (28, 6, 3, 48), (112, 6, 5, 192))
  for side, channels, layers, width in table:
    module = encoders.LeNet(channels, layers)
    assert module.features == width
    assert _features(module, (2, side, side, 1)) == (2, width)
    assert encoders.by_name("lenet", (2, side, side), jnp.float32).layers == layers
  params = jax.eval_shape(lambda x: _init(encoders.LeNet(3, 1), x, MASK[:1]), jnp.ones((1, 4, 4)))
  assert params["params"]["conv0"]["kernel"].shape == (5, 5, 1, 3)
  assert params["params"]["conv1"]["kernel"].shape == (3, 3, 3, 6)


def test_frames_average_the_encoder_over_time():
  x = _data("frames")
  inner = encoders.Conv2D(4, (4,))
  module = encoders.Frames(inner, segments=1)
  variables = _init(module, x)

  @jax.jit
  def run(x):
    frame = lambda t: inner.apply(
      {"params": variables["params"]["encoder"]}, x[:, t], MASK, train=False
    )
    return module.apply(variables, x, MASK, train=False), (frame(0) + frame(1)) / 2

  np.testing.assert_allclose(*run(x), atol=1e-6)


def test_gru_by_its_equations():
  x = jax.random.normal(jax.random.key(0), (1, 2, 3))
  module = encoders.GRU(2)
  variables = _init(module, x, MASK[:1])
  cell = jax.tree.leaves_with_path(variables["params"])
  weights = {"/".join(str(k.key) for k in path[-2:]): np.asarray(leaf) for path, leaf in cell}
  weight = lambda name: weights[f"{name}/kernel"]
  bias = lambda name: weights.get(f"{name}/bias", 0.0)
  sigmoid = lambda a: 1 / (1 + np.exp(-a))
  h = np.zeros(2)
  for step in np.asarray(x[0]):
    r = sigmoid(step @ weight("ir") + bias("ir") + h @ weight("hr"))
    z = sigmoid(step @ weight("iz") + bias("iz") + h @ weight("hz"))
    n = np.tanh(step @ weight("in") + bias("in") + r * (h @ weight("hn") + bias("hn")))
    h = (1 - z) * n + z * h
  np.testing.assert_allclose(module.apply(variables, x, MASK[:1], train=False)[0], h, atol=1e-5)


def test_embedding_padding_and_unknown_tokens():
  module = encoders.Embedding(3, 2, 2)
  tokens = jnp.array([[0, 1, -1], [1, 0, -5], [7, 3, 99], [2, 2, 2]])
  variables = _init(module, tokens)
  assert variables["params"]["table"].shape == (4, 2)
  run = jax.jit(lambda tokens: module.apply(variables, tokens, MASK, train=False))
  h = run(tokens)
  np.testing.assert_allclose(h[0], h[1], atol=1e-6)  # a bag of words; padding left out
  single = run(jnp.array([3, 3, 3, 2]))
  np.testing.assert_allclose(h[2:], single[2:], atol=1e-6)  # all unknown tokens share one row
  assert encoders.vocabulary_size(np.array([[4, -1], [2, 0]])) == 5
  with pytest.raises(TypeError, match="tokens are integers, got dtype float64"):
    encoders.vocabulary_size(np.ones(3))
  with pytest.raises(TypeError, match="takes integer tokens, got dtype float32"):
    module.init(jax.random.key(0), jnp.ones((4, 2)), MASK, train=False)


def test_dropout_acts_in_training_only():
  module, x = encoders.MLP(4, (64,), dropout=0.5), _data("mlp")
  variables = _init(module, x)

  @jax.jit
  def run(key):
    apply = lambda train: module.apply(variables, x, MASK, train=train, rngs={"dropout": key})
    return apply(False), apply(True)

  (quiet, noisy), (other_quiet, other_noisy) = run(jax.random.key(0)), run(jax.random.key(1))
  np.testing.assert_array_equal(quiet, other_quiet)
  assert not np.allclose(noisy, other_noisy)


def test_defaults_by_rank_and_dtype():
  kind = lambda shape, dtype=jnp.float32, **vocabulary: (
    type(encoders.default_encoder(shape, dtype, **vocabulary)).__name__
  )
  assert [kind((2,) * n) for n in (2, 3, 4, 5)] == ["MLP", "Conv1D", "Conv2D", "Frames"]
  assert kind((2, 5), jnp.int32, vocabulary=4) == "Embedding"
  with pytest.raises(ValueError, match="needs its vocabulary size, got none"):
    kind((2, 5), jnp.int32)
  with pytest.raises(ValueError, match=r"no encoder for shape \[2\] of float32"):
    kind((2,))
  with pytest.raises(ValueError, match=r"no encoder for shape \[2, 3\] of bool"):
    kind((2, 3), jnp.bool_)
  with pytest.raises(ValueError, match=r"tokens \[B\] or \[B, L\], got shape \[2, 2, 2\]"):
    kind((2, 2, 2), jnp.int32, vocabulary=3)


@pytest.mark.parametrize(
  "spec,shape,kind",
  [
    ("mlp", (2, 3), "MLP"),
    ("conv1d", (2, 3, 4), "Conv1D"),
    ("conv2d", (2, 3, 4), "Conv2D"),
    ("lenet", (2, 3, 4), "LeNet"),
    ("resnet18", (2, 3, 4, 1), "ResNet18"),
    ("resnet34", (2, 3, 4, 1), "ResNet34"),
    ("gru", (2, 3, 4), "GRU"),
    ("lstm", (2, 3, 4), "LSTM"),
    ("transformer", (2, 3, 4), "Transformer"),
    ("conv1d_steps", (2, 3, 4), "Conv1D"),
    ("transformer_steps", (2, 3, 4), "Transformer"),
    ("linear", (2, 3, 4, 1, 2), "MLP"),
    ("identity", (2, 3), "Identity"),
  ],
)
def test_by_name(spec, shape, kind):
  assert type(encoders.by_name(spec, shape, np.float32)).__name__ == kind


def test_linear_is_one_dense_layer_and_identity_is_nothing():
  x, mask = jax.random.normal(jax.random.key(0), (3, 2, 2)), jnp.ones(3, bool)
  linear, identity = (encoders.by_name(n, x.shape, x.dtype) for n in ("linear", "identity"))
  h, variables = linear.init_with_output(jax.random.key(1), x, mask, train=True)
  (dense,) = variables["params"].values()
  np.testing.assert_allclose(h, x.reshape(3, 4) @ dense["kernel"] + dense["bias"][None], atol=1e-6)
  assert h.shape == (3, 64) and (np.asarray(h) < 0).any()
  h, variables = identity.init_with_output(jax.random.key(1), x, mask, train=True)
  np.testing.assert_array_equal(h, x.reshape(3, 4))
  assert not variables


def test_steps_are_kept_by_what_averages_them_and_by_nothing_else():
  class Own(encoders.Conv1D):
    """A user's."""

  kept = encoders.keep_steps(encoders.Conv1D(5, kernel=3))
  assert kept == encoders.Conv1D(5, kernel=3, pool="none") and kept.step_features == 5
  for module in (Own(), encoders.Conv1D(pool="mean"), encoders.GRU(), encoders.MLP()):
    assert encoders.keep_steps(module) is module


@pytest.mark.parametrize("kind", ["conv1d", "transformer"])
def test_an_encoder_without_pooling_keeps_its_steps(kind):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 2)), jnp.float32)
  steps, mean = (
    encoders.Conv1D(4, (3, 4), pool=pool)
    if kind == "conv1d"
    else encoders.Transformer(4, 1, 2, pool=pool)
    for pool in ("none", "mean")
  )
  assert steps.step_features == 4 and mean.step_features is None
  given = x if kind == "conv1d" else Sequence(x, jnp.array([6, 2, 6]))
  present = jnp.ones(3, bool)
  variables = jax.jit(lambda: mean.init(jax.random.key(0), given, present, train=False))()
  kept, pooled = (
    jax.jit(lambda e=e: e.apply(variables, given, present, train=False))() for e in (steps, mean)
  )
  assert kept.shape == (3, 6, 4)  # too few to halve
  valid = np.full((3, kept.shape[1], 1), True)
  if kind == "transformer":
    valid[1, 2:] = False
    assert (np.asarray(kept)[1, 2:] == 0).all()
  np.testing.assert_allclose((kept * valid).sum(1) / valid.sum(1), pooled, atol=1e-6)


def test_by_name_refuses_with_a_sentence():
  assert encoders.by_name("embedding", (2, 3), jnp.int32, vocabulary=4).vocabulary == 4
  with pytest.raises(ValueError, match="unknown encoder 'resnet-18'; closest: resnet18"):
    encoders.by_name("resnet-18", (2, 3, 3, 1), jnp.float32)
  with pytest.raises(ValueError, match=r"'conv1d' takes floats of rank 3 .*got shape \[2, 3\] of"):
    encoders.by_name("conv1d", (2, 3), jnp.float32)
  with pytest.raises(
    ValueError, match=r"'linear' takes floats of rank 2 or more .*got shape \[2\] of"
  ):
    encoders.by_name("linear", (2,), jnp.float32)
  with pytest.raises(ValueError, match="'embedding' takes integers, got float32"):
    encoders.by_name("embedding", (2, 3), jnp.float32, vocabulary=4)


@pytest.mark.parametrize(
  "module,x,sentence",
  [
    (encoders.GRU(), jnp.ones((2, 3)), r"takes \[B, T, C\], got shape \[2, 3\]"),
    (
      encoders.GRU(),
      Sequence(jnp.ones((2, 3)), jnp.ones(2)),
      r"takes \[B, T, C\], got shape \[2, 3\]",
    ),
    (encoders.GRU(pool="max"), jnp.ones((2, 3, 1)), "pool is one of last, mean, all, got 'max'"),
    (encoders.Transformer(6), jnp.ones((2, 3, 1)), r"features \(6\) must be a multiple of heads"),
    (encoders.Transformer(pool="max"), jnp.ones((2, 3, 1)), "'mean' or 'none', got 'max'"),
    (encoders.Conv1D(pool="max"), jnp.ones((2, 3, 1)), "'mean' or 'none', got 'max'"),
    (encoders.LeNet(), jnp.ones((2, 3)), r"\[B, H, W\] or \[B, H, W, C\], got shape \[2, 3\]"),
  ],
)
def test_bad_inputs_are_refused_with_a_sentence(module, x, sentence):
  with pytest.raises(ValueError, match=sentence):
    module.init(jax.random.key(0), x, jnp.ones(2, bool), train=False)


def test_statistics_are_global_over_a_mesh():
  module, x = SMALL["conv1d"][0], _data("conv1d")
  variables = _init(module, x)
  run = jax.jit(
    lambda x, mask: module.apply(variables, x, mask, train=True, mutable=["batch_stats"])
  )
  mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  sharded = run(jax.device_put(x, rows), jax.device_put(MASK, rows))
  chex.assert_trees_all_close(run(x, MASK), jax.device_get(sharded), atol=1e-5)
