"""The two halves of a U-Net, any size; pieces of ESANet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.encoders._esanet import Upsample
from mmfuse.encoders._unet import doubled, halved

THERE = jnp.ones(2, bool)


def test_halved_and_doubled_by_hand():
  x = jnp.arange(6.0).reshape(1, 2, 3, 1)
  np.testing.assert_allclose(halved(x)[0, :, :, 0], [[2.0, 3.5]])  # (0+1+3+4)/4, (2+2+5+5)/4
  np.testing.assert_allclose(
    doubled(halved(x), (2, 3))[0, :, :, 0], [[2.0, 2.0, 3.5], [2.0, 2.0, 3.5]]
  )


@pytest.mark.parametrize("size", [(5, 7), (4, 8), (1, 3)])
def test_maps_halve_and_logits_have_the_size_of_the_input(size):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
  net = encoders.UNet(width=4, levels=2)
  maps = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, THERE, train=False)[0])
  high, wide = (-(-n // 2) for n in size)
  assert [m.shape for m in maps] == [(2, *size, 4), (2, high, wide, 8)]
  decoder = encoders.UNetDecoder(5, width=4)
  zeros = [jnp.zeros(m.shape) for m in maps]
  logits, beside = jax.eval_shape(
    lambda: decoder.init_with_output(jax.random.key(0), zeros, THERE, train=False)[0]
  )
  assert logits.shape == (2, *size, 5) and beside["latent"].shape == (2, high, wide, 8)


def test_layouts_agree_and_a_slice_is_standardised_by_itself():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 1)), jnp.float32)
  lax, patches = (encoders.UNet(width=4, levels=2, formulation=f) for f in ("lax", "patches"))
  variables = lax.init(jax.random.key(0), x, THERE, train=False)
  run = lambda net, y: net.apply(variables, y, THERE, train=True)
  for a, b, scaled in zip(run(lax, x), run(patches, x), run(lax, 7.0 * x + 3.0)):
    np.testing.assert_allclose(a, b, atol=2e-5)
    inside = (slice(None), slice(2, -2), slice(2, -2))  # the border sees zeros outside
    assert np.isfinite(scaled[inside]).all()
  one = run(lax, x.at[1].set(100.0))
  np.testing.assert_allclose(run(lax, x)[1][0], one[1][0], atol=1e-5)  # no row sees another


def test_instance_norm_by_hand():
  x = jnp.asarray([[[1.0, 10.0], [3.0, 30.0]]])[:, None]  # [1, 1, 2, 2]
  norm = encoders.Norm("instance")
  y = norm.init_with_output(jax.random.key(0), x, jnp.ones(1, bool), train=True)[0]
  np.testing.assert_allclose(y[0, 0], [[-1.0, -1.0], [1.0, 1.0]], atol=1e-4)
  last = encoders.Norm("instance", channel=0)
  turned = jnp.swapaxes(x, 0, -1)
  z = last.init_with_output(jax.random.key(0), turned, jnp.ones(1, bool), train=True)[0]
  np.testing.assert_allclose(jnp.swapaxes(z, 0, -1), y, atol=1e-6)


def test_a_map_head_is_linear_in_every_scale():
  maps = (jnp.ones((1, 3, 2, 4)), 2.0 * jnp.ones((1, 2, 1, 3)))
  head = encoders.MapHead(2)
  y, variables = head.init_with_output(jax.random.key(0), maps)
  params = variables["params"]
  expected = params["scale0"]["kernel"].sum(0) + 2.0 * params["scale1"]["kernel"].sum(0)
  np.testing.assert_allclose(y, np.broadcast_to(expected, (1, 3, 2, 2)), rtol=1e-5)
  assert "bias" not in params["scale1"]


def _count(variables) -> int:
  return sum(x.size for x in jax.tree.leaves(variables["params"]))


def test_a_factorised_block_has_two_thirds_of_the_weights():
  x = jnp.zeros((2, 6, 5, 8))
  made = lambda block: jax.eval_shape(
    lambda: block.init_with_output(jax.random.key(0), x, THERE, train=False)
  )
  y, variables = made(encoders.NonBottleneck1D(8))
  assert y.shape == x.shape
  assert _count(variables) == 12 * 8 * 8 + 2 * 8 + 4 * 8  # kernels, biases of 3 x 1, two norms
  y, variables = made(encoders.NonBottleneck1D(16, stride=2))
  assert y.shape == (2, 3, 3, 16) and "match" in variables["params"]


def test_pyramid_pooling_and_upsampling_keep_any_size():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 8)), jnp.float32)
  pool = encoders.PyramidPooling(6, (1, 2))
  y = jax.eval_shape(lambda: pool.init_with_output(jax.random.key(0), x, THERE, train=False)[0])
  assert y.shape == (2, 3, 5, 6)
  up = jax.eval_shape(lambda: Upsample().init_with_output(jax.random.key(0), x, (7, 9))[0])
  assert up.shape == (2, 7, 9, 8)
