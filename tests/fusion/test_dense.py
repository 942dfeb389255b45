"""Maps of several modalities: masks, restriction, what reaches what; shapes and cost of ESANet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion

MASK = {"a": jnp.array([True, False, True]), "b": jnp.array([True, True, False])}


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  shapes = {"a": (3, 5, 6), "b": (3, 5, 6, 2)}
  return {m: jnp.asarray(rng.normal(size=s), jnp.float32) for m, s in shapes.items()}


def model(names="ab", classes=2):
  unets = dict.fromkeys(names, encoders.UNet(width=4, levels=2))
  return fusion.DenseFusion(unets, classes, encoders.UNetDecoder(classes, width=4))


@pytest.fixture(scope="module")
def variables():
  return model().init(jax.random.key(0), inputs(), MASK)


@jax.jit
def said(variables, x, mask):
  net = model()
  features, stats = net.encode(variables, x, mask, train=False)
  return net.heads({**variables, "batch_stats": stats}, features, mask, train=False)[0]


def test_logits_have_a_place_for_every_pixel_and_heads_of_modalities_beside(variables):
  outputs = said(variables, inputs(), MASK)
  assert outputs.logits.shape == (3, 5, 6, 2)
  assert {m: z.shape for m, z in outputs.unimodal_logits.items()} == dict.fromkeys(
    "ab", (3, 5, 6, 2)
  )
  assert set(variables["params"]) == {"a", "b", "heads"}
  assert set(variables["params"]["heads"]) == {"a", "b", "fused"}


def test_what_is_absent_is_never_read(variables):
  x = inputs()
  dirty = {"a": x["a"].at[1].set(jnp.nan), "b": x["b"].at[2].set(jnp.inf)}
  for clean, other in zip(*(jax.tree.leaves(said(variables, v, MASK)) for v in (x, dirty))):
    np.testing.assert_array_equal(clean, other)

  def loss(params, x):
    net = model()
    features, _ = net.encode({"params": params, "batch_stats": {}}, x, MASK, train=True)
    whole = {"params": params, "batch_stats": {}}
    return net.heads(whole, features, MASK, train=True)[0].logits.sum()

  one, two = (jax.grad(loss)(variables["params"], v) for v in (x, dirty))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two)):
    np.testing.assert_array_equal(a, b)
    assert np.isfinite(a).all()


def test_of_one_modality_the_decoder_is_its_head():
  one = model().restrict("b")
  made = one.init(jax.random.key(0), inputs(), MASK)
  features, _ = one.encode(made, inputs(), MASK, train=False)
  outputs, _ = one.heads(made, features, MASK, train=False)
  np.testing.assert_array_equal(outputs.logits, outputs.unimodal_logits["b"])
  assert set(made["params"]["heads"]) == {"fused"}
  with pytest.raises(ValueError, match="modality 'c' not in the model; available: a, b"):
    model().restrict("c")
  with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
    model(classes=1)


def test_maps_stand_side_by_side_in_the_order_of_names():
  maps = {m: (jnp.full((3, 1, 1, 1), v),) for m, v in (("b", 2.0), ("a", 1.0))}
  (found,) = fusion.joined(maps, MASK)
  np.testing.assert_array_equal(found[:, 0, 0], [[1, 2], [0, 2], [1, 0]])


@pytest.mark.parametrize("size", [(32, 32), (20, 30)])
def test_esanet_gives_a_class_to_every_pixel_of_any_size(size):
  net = fusion.ESANet(
    3, widths=(4, 4, 4, 8, 8), blocks=(1, 1, 1, 1), decoder=(8, 4, 4), decoder_blocks=1
  )
  made = fusion.from_linen(net, ("depth", "rgb"))
  x = {"rgb": jnp.zeros((2, *size, 3)), "depth": jnp.zeros((2, *size))}
  mask = {m: jnp.ones(2, bool) for m in x}

  def run():
    variables = made.init(jax.random.key(0), x, mask)
    features, stats = made.encode(variables, x, mask, train=False)
    whole = {**variables, "batch_stats": stats}
    return made.heads(whole, features, mask, train=False)[0], variables

  outputs, variables = jax.eval_shape(run)
  assert outputs.logits.shape == (2, *size, 3)
  names = list(variables["params"])
  assert sum("excite" in n for n in names) == 10  # five stages of two streams
  assert sum(n.startswith("skip") for n in names) == 3


@pytest.mark.slow
def test_esanet_of_the_paper_has_the_weights_of_two_factorised_resnets():
  net = fusion.ESANet(40)
  made = fusion.from_linen(net, ("depth", "rgb"))
  x = {"rgb": jnp.zeros((1, 64, 64, 3)), "depth": jnp.zeros((1, 64, 64, 1))}
  variables = jax.eval_shape(
    lambda: made.init(jax.random.key(0), x, {m: jnp.ones(1, bool) for m in x})
  )
  params = variables["params"]
  count = lambda tree: sum(int(np.prod(v.shape)) for v in jax.tree.leaves(tree))
  stream = {k: v for k, v in params.items() if k.startswith("rgb_stage")}
  # 12 C^2 for each of 3, 4, 6, 3 blocks, less where a stage begins; the stem has 7 x 7 x 3 x 64
  blocks = [(64, 64, 3), (64, 128, 4), (128, 256, 6), (256, 512, 3)]
  kernels = sum(3 * i * o + 9 * o * o + (n - 1) * 12 * o * o for i, o, n in blocks)
  matches = sum(i * o for i, o, _ in blocks if i != o)
  assert kernels + matches + 9408 < count(stream) < 1.01 * (kernels + matches + 9408)
  assert 35e6 < count(params) < 60e6
