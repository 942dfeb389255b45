"""ResNets: torchvision's names and shapes, explicit padding, the block by its equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.encoders._resnet import BasicBlock, SqueezeExcite, Stage

RENAMED = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def _torchvision(blocks):
  """Names and shapes of torchvision's state dict, without fc and num_batches_tracked."""
  fields = ("weight", "bias", "running_mean", "running_var")
  norm = lambda name, c: {f"{name}.{field}": (c,) for field in fields}
  table = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
  c = 64
  for i, count in enumerate(blocks):
    width = 64 * 2**i
    for j in range(count):
      at = f"layer{i + 1}.{j}"
      table |= {
        f"{at}.conv1.weight": (width, c, 3, 3),
        **norm(f"{at}.bn1", width),
        f"{at}.conv2.weight": (width, width, 3, 3),
        **norm(f"{at}.bn2", width),
      }
      if c != width:
        table[f"{at}.downsample.0.weight"] = (width, c, 1, 1)
        table |= norm(f"{at}.downsample.1", width)
      c = width
  return table


def _variables(module, shape):
  return jax.eval_shape(
    lambda x, mask: module.init(jax.random.key(0), x, mask, train=False),
    jax.ShapeDtypeStruct(shape, jnp.float32),
    jax.ShapeDtypeStruct(shape[:1], bool),
  )


def _named(variables):
  table = {}
  for path, leaf in jax.tree.leaves_with_path(variables):
    keys = [k.key for k in path[1:]]
    shape = leaf.shape
    if keys[-1] == "kernel":
      shape = (shape[3], shape[2], shape[0], shape[1])
    table[".".join([*keys[:-1], RENAMED[keys[-1]]])] = shape
  return table


@pytest.mark.parametrize(
  "module,blocks,count",
  [
    (encoders.ResNet18(), (2, 2, 2, 2), 11_176_512),
    (encoders.ResNet34(), (3, 4, 6, 3), 21_284_672),
  ],
)
def test_names_and_shapes_are_those_of_torchvision(module, blocks, count):
  variables = _variables(module, (1, 64, 64, 3))
  assert _named(variables) == _torchvision(blocks)
  # torchvision's totals, less its classifier: 11 689 512 - 513 000 and 21 797 672 - 513 000
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


def test_options():
  small = _variables(encoders.ResNet18(100, norm="group", small_stem=True), (1, 32, 32, 1))
  assert set(small) == {"params"}
  assert small["params"]["conv1"]["kernel"].shape == (3, 3, 1, 64)
  assert small["params"]["project"]["kernel"].shape == (512, 100)


@pytest.mark.parametrize("formulation", ["lax", "patches"])
def test_stage_by_its_equation(formulation):
  x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
  mask = jnp.ones(2, bool)
  module = Stage(1, 4, 2, "batch", formulation)
  variables = jax.jit(lambda x: module.init(jax.random.key(1), x, mask, train=False))(x)
  p = variables["params"]["0"]

  def conv(x, kernel, stride, pad):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      ((pad, pad), (pad, pad)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  @jax.jit
  def run(x):
    norm = 1 / np.sqrt(1 + 1e-5)  # fresh running statistics: mean 0, variance 1
    y = jax.nn.relu(conv(x, p["conv1"]["kernel"], 2, 1) * norm)
    y = conv(y, p["conv2"]["kernel"], 1, 1) * norm
    expected = jax.nn.relu(y + conv(x, p["downsample"]["0"]["kernel"], 2, 0) * norm)
    return module.apply(variables, x, mask, train=False), expected

  y, expected = run(x)
  assert y.shape == (2, 3, 3, 4)
  np.testing.assert_allclose(y, expected, atol=1e-5)


def test_squeeze_and_excitation_by_its_equation():
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  module = SqueezeExcite(2)
  params = module.init(jax.random.key(1), x)["params"]
  assert params["squeeze"]["kernel"].shape == (4, 2)
  h = np.asarray(x).mean((1, 2)) @ params["squeeze"]["kernel"] + params["squeeze"]["bias"][None]
  z = np.maximum(h, 0) @ params["excite"]["kernel"] + params["excite"]["bias"][None]
  gate = 1 / (1 + np.exp(-z))
  np.testing.assert_allclose(
    module.apply({"params": params}, x), x * gate[:, None, None], rtol=1e-5, atol=1e-6
  )


def test_a_block_is_gated_before_its_input_is_added():
  """With a gate of one half everywhere: ReLU(x + y / 2)."""
  x, mask = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), jnp.ones(2, bool)
  plain, gated = (BasicBlock(3, 1, "none", "lax", ratio) for ratio in (0, 2))
  variables = gated.init(jax.random.key(1), x, mask, train=False)["params"]
  variables["se"] = jax.tree.map(jnp.zeros_like, variables["se"])
  own = {k: v for k, v in variables.items() if k != "se"}
  own["conv2"] = {"kernel": own["conv2"]["kernel"] / 2}
  run = lambda block, params: block.apply({"params": params}, x, mask, train=False)
  np.testing.assert_allclose(run(gated, variables), run(plain, own), atol=1e-5)


def test_the_stem_of_an_se_resnet():
  module = encoders.SEResNet18Stem((4, 6), 2)
  shape = jax.eval_shape(
    lambda x: module.init_with_output(jax.random.key(0), x, jnp.ones(2, bool), train=False)[0],
    jax.ShapeDtypeStruct((2, 48, 32, 3), jnp.float32),
  ).shape
  assert shape == (2, 6, 4, 6) and module.step_features == 6
  names = _variables(encoders.SEResNet18Stem(), (1, 112, 112, 3))["params"]
  assert set(names) == {"conv1", "bn1", "layer1", "layer2"}
  assert names["conv1"]["kernel"].shape == (3, 3, 3, 64)
  assert set(names["layer1"]["0"]) == {"conv1", "bn1", "conv2", "bn2", "se"}
