"""Modules of another call, and those of Flax NNX, as encoders."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmfuse import core, data, encoders, fusion, methods, train

QUICK = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
X, MASK = jax.random.normal(jax.random.key(0), (5, 2, 2)), jnp.array([1, 1, 0, 1, 1], bool)


class Plain(nn.Module):
  """x alone."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3, name="dense")(x.reshape(x.shape[0], -1))


class Training(nn.Module):
  """With Flax's own batch norm, told by `train`."""

  @nn.compact
  def __call__(self, x, train: bool):
    x = Plain(name="plain")(x)
    return nn.BatchNorm(use_running_average=not train, name="norm")(x)


class Masked(nn.Module):
  """Told who is there, and an option it has a default for."""

  def __call__(self, x, mask, scale=2.0):
    return scale * mask[:, None] * x.reshape(x.shape[0], -1)


class Quiet(nn.Module):
  """Told that it is not training."""

  def __call__(self, x, *, deterministic):
    return x.reshape(x.shape[0], -1) * (1.0 if deterministic else 0.0)


class Net(nnx.Module):
  """An NNX module with statistics, dropout and a list of layers."""

  def __init__(self, in_features, *, rngs: nnx.Rngs):
    self.layers = nnx.List([nnx.Linear(in_features, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)])
    self.norm = nnx.BatchNorm(3, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x):
    x = x.mean(1)
    for layer in self.layers:
      x = layer(x)
    return self.drop(self.norm(x))


class Flat(nnx.Module):
  """Made of the shape of a row."""

  def __init__(self, shape, *, rngs: nnx.Rngs, width: int = 3):
    self.dense = nnx.Linear(int(np.prod(shape)), width, rngs=rngs)

  def __call__(self, x, mask, train):
    h = self.dense(x.reshape(x.shape[0], -1))
    return h * mask[:, None] if train else h


def _init(module):
  return QUICK(lambda: module.init(jax.random.key(1), X, MASK, train=False))()


def _apply(module, variables, train=False, key=2):
  rngs = {"dropout": jax.random.key(key)}
  return QUICK(lambda v: module.apply(v, X, MASK, train=train, rngs=rngs, mutable=["batch_stats"]))(
    variables
  )


def test_an_encoder_stays_what_it_is():
  for module in (encoders.MLP(3), encoders.Chain((encoders.MLP(3),))):
    assert encoders.adapt(module, "a") is module


def test_a_linen_module_gets_what_it_names():
  flat = np.asarray(X).reshape(5, 4)
  plain = encoders.adapt(Plain(), "a")
  variables = _init(plain)
  assert set(variables["params"]) == {"dense"}  # its own paths
  np.testing.assert_allclose(
    _apply(plain, variables)[0], flat @ variables["params"]["dense"]["kernel"], atol=1e-5
  )
  masked, quiet = encoders.adapt(Masked(), "a"), encoders.adapt(Quiet(), "a")
  np.testing.assert_allclose(_apply(masked, {})[0], 2 * flat * np.asarray(MASK)[:, None])
  np.testing.assert_allclose(_apply(quiet, {})[0], flat)
  np.testing.assert_allclose(_apply(quiet, {}, train=True)[0], 0 * flat)
  training = encoders.adapt(Training(), "a")
  variables = _init(training)
  moved = [_apply(training, variables, train=t)[1].get("batch_stats") for t in (False, True)]
  before = variables["batch_stats"]["norm"]["mean"]
  np.testing.assert_array_equal(before, moved[0]["norm"]["mean"] if moved[0] else before)
  assert (np.asarray(moved[1]["norm"]["mean"]) != before).any()


def test_an_nnx_class_starts_anew_from_every_key_and_draws_anew_in_every_step():
  module = encoders.adapt(Net, "a")
  variables = _init(module)
  assert set(variables) == {"params", "batch_stats"}
  assert set(variables["params"]) == {"layers", "norm"}
  other = QUICK(lambda: module.init(jax.random.key(7), X, MASK, train=False))()
  kernel = lambda v: np.asarray(jax.tree.leaves(v["params"]["layers"])[1])
  assert (kernel(variables) != kernel(other)).any()
  quiet, _ = _apply(module, variables)
  layers = [variables["params"]["layers"][i] for i in variables["params"]["layers"]]
  h = np.asarray(X).mean(1)
  for layer in layers:
    h = h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
  np.testing.assert_allclose(quiet, h / np.sqrt(1 + 1e-5), atol=1e-5)  # running averages 0 and 1
  (one, new), (two, _) = (_apply(module, variables, train=True, key=k) for k in (2, 3))
  assert (np.asarray(one) == 0).any() and (np.asarray(one) != np.asarray(two)).any()
  np.testing.assert_allclose(new["batch_stats"]["norm"]["mean"], 0.01 * h.mean(0), atol=1e-6)


def test_an_nnx_instance_starts_from_its_own_weights_and_a_shape_is_that_of_a_row():
  made = Net(2, rngs=nnx.Rngs(3))
  module = encoders.adapt(made, "a")
  variables = _init(module)
  np.testing.assert_array_equal(
    jax.tree.leaves(variables["params"]["layers"])[1], made.layers[0].kernel[...]
  )
  (one, _), (two, _) = (_apply(module, variables, train=True, key=k) for k in (2, 3))
  assert (np.asarray(one) != np.asarray(two)).any()  # its own stream would draw alike
  for flat in (Flat, lambda shape, rngs: Flat(shape, rngs=rngs)):
    module = encoders.adapt(flat, "a")
    variables = _init(module)
    assert variables["params"]["dense"]["kernel"].shape == (4, 3)
    assert (np.asarray(_apply(module, variables, train=True)[0])[2] == 0).all()


class Hidden(nnx.Module):
  """Needs a number nobody gives."""

  def __init__(self, hidden, rngs):
    """Nothing."""


class Lengths(nn.Module):
  """Needs more than there is."""

  def __call__(self, x, lengths):
    """Nothing."""


@pytest.mark.parametrize(
  "module,sentence",
  [
    (
      Hidden,
      r"encoder of 'gait' \(Hidden\) is made with 'hidden', which has no default; an NNX module "
      "is made with what it names of shape, in_features, rngs",
    ),
    (Lengths(), r"\(Lengths\) is called with 'lengths', which has no default; .* of mask, train,"),
    (Plain, r"\(Plain\) is a class, expected a Linen module, or an NNX module, its class"),
    (len, r"\(len\) is a builtin_function_or_method, expected a Linen"),
    ("mlp", "is a str, expected a Linen module"),
  ],
)
def test_what_cannot_be_called_is_refused_with_a_sentence(module, sentence):
  with pytest.raises(ValueError, match=sentence):
    fusion.LateFusion({"gait": module}, 2)


def test_adapted_modules_train_resume_and_predict(tmp_path):
  """NNX, plain Linen and no parameters at all, side by side; a checkpoint holds all three."""
  rng = np.random.default_rng(0)
  label = np.arange(24) % 2
  arrays = {m: rng.normal(size=(24, 2, 2)) + label[:, None, None] for m in "abc"}
  splits = data.from_arrays({**arrays, "label": label})
  model = fusion.LateFusion({"a": Net, "b": Plain(), "c": encoders.Identity()}, 2)
  method = methods.METHODS["joint"](model, 0.1)
  fit = lambda epochs, **more: train.fit(
    method,
    splits,
    epochs=epochs,
    batch_size=8,
    checkpoint_dir=str(tmp_path / "run"),
    checkpoint_seconds=0.0,
    **more,
  )

  def stop(entry):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    fit(2, on_epoch=stop)
  state = fit(2).state(0)
  assert state.params["c"] == {}
  chex.assert_tree_all_finite(state.params)
  train.save_weights(tmp_path / "w.safetensors", state)
  batch = jax.tree.map(lambda x: x[:2], train.to_batch(splits.train))
  template = jax.eval_shape(functools.partial(train.initial, method), jax.random.key(0), batch)
  again = train.load_weights(tmp_path / "w.safetensors", template)
  chex.assert_trees_all_equal(state.params, again.params)
  outputs = train.predict_split(method, again, splits.test)
  assert isinstance(outputs, core.Outputs) and np.isfinite(outputs.logits).all()
