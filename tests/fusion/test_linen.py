"""fusion.from_linen: a module of the user's own behaves as a core.Model."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import core, encoders, fusion, masks


class Mine(nn.Module):
  """Two encoders and a head with statistics on both sides."""

  def setup(self):
    self.image = encoders.MLP(3, (), norm="batch")
    self.text = encoders.MLP(2, (), dropout=0.5)
    self.mixing = encoders.Norm("batch")
    self.fused = nn.Dense(2)

  def encode(self, inputs, mask, train):
    return {m: getattr(self, m)(inputs[m], mask[m], train=train) for m in ("image", "text")}

  def heads(self, features, mask, train):
    joined = jnp.concatenate([features["image"], features["text"]], -1)
    joined = self.mixing(joined, mask["image"] & mask["text"], train=train)
    return core.Outputs(self.fused(joined), {}, features)


INPUTS = {"image": jnp.arange(12.0).reshape(4, 3) % 5, "text": jnp.arange(8.0).reshape(4, 2) % 3}
MASK = {"image": jnp.array([True, True, False, True]), "text": jnp.ones(4, bool)}
RNGS = {"dropout": jax.random.key(1)}


def test_from_linen_fulfils_the_contract():
  model = fusion.from_linen(Mine(), ["text", "image"])
  assert model.modalities == ("image", "text")
  assert model.restrict is None
  variables = jax.jit(model.init)(jax.random.key(0), INPUTS, MASK)
  assert set(variables["params"]) == {"image", "text", "mixing", "fused"}

  @jax.jit
  def run(inputs, mask):
    features, middle = model.encode(variables, inputs, mask, train=True, rngs=RNGS)
    outputs, end = model.heads(
      {**variables, "batch_stats": middle}, features, mask, train=True, rngs=RNGS
    )
    return outputs, middle, end

  outputs, middle, end = run(INPUTS, MASK)
  assert outputs.logits.shape == (4, 2)
  old = variables["batch_stats"]
  chex.assert_trees_all_equal_shapes_and_dtypes(old, middle, end)
  chex.assert_trees_all_equal(middle["mixing"], old["mixing"])
  chex.assert_trees_all_equal(end["image"], middle["image"])
  moved = lambda a, b: not np.allclose(a["mean"], b["mean"], atol=1e-4)
  assert moved(middle["image"]["norm0"], old["image"]["norm0"])
  assert moved(end["mixing"], old["mixing"])
  chex.assert_trees_all_equal((middle, end), run(masks.fill(INPUTS, MASK, jnp.nan), MASK)[1:])


def test_evaluation_keeps_the_statistics_and_needs_no_key():
  model = fusion.from_linen(Mine(), ["text", "image"])
  variables = jax.jit(model.init)(jax.random.key(0), INPUTS, MASK)

  @jax.jit
  def run(inputs):
    features, middle = model.encode(variables, inputs, MASK, train=False)
    return model.heads({**variables, "batch_stats": middle}, features, MASK, train=False)

  outputs, stats = run(INPUTS)
  chex.assert_trees_all_equal(stats, variables["batch_stats"])
  both = lambda module, x: module.heads(module.encode(x, MASK, False), MASK, False)
  direct = Mine().apply(variables, masks.fill(INPUTS, MASK), method=both)
  np.testing.assert_allclose(outputs.logits, direct.logits, atol=1e-5)


def test_other_modules_are_refused_with_a_sentence():
  with pytest.raises(TypeError, match="Dense has no method 'encode'; from_linen needs encode"):
    fusion.from_linen(nn.Dense(2), ["a"])
  with pytest.raises(ValueError, match="'label' is a reserved name"):
    fusion.from_linen(Mine(), ["label"])
  with pytest.raises(ValueError, match="modality 'text' not in inputs; available: image"):
    fusion.from_linen(Mine(), ["image", "text"]).init(
      jax.random.key(0), {"image": INPUTS["image"]}, MASK
    )
