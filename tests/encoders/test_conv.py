"""encoders.Conv and max_pool: loops in numpy as the oracle, formulations and layouts equal."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.encoders import Conv, max_first, max_pool
from mmfuse.encoders._conv import conv_by_row, conv_lax
from mmfuse.encoders._winograd import conv_winograd
from tests.encoders.derivatives import assert_same_derivatives


def _oracle(x, kernel, strides, padding):
  """Cross-correlation of x [B, H, W, C] by four loops."""
  x = np.pad(x, ((0, 0), *padding, (0, 0)))
  (kh, kw), (sh, sw) = kernel.shape[:2], strides
  rows, cols = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
  y = np.zeros((x.shape[0], rows, cols, kernel.shape[-1]))
  for i, j in itertools.product(range(rows), range(cols)):
    window = x[:, i * sh : i * sh + kh, j * sw : j * sw + kw]
    y[:, i, j] = np.tensordot(window, kernel, 3)
  return y


CASES = [  # size, kernel, strides, padding, the same as pairs
  ((5, 4), (3, 3), (1, 1), "SAME", ((1, 1), (1, 1))),
  ((6, 7), (2, 3), (2, 2), "SAME", ((0, 0), (1, 1))),
  ((1, 1), (5, 5), (1, 1), (2, 2), ((2, 2), (2, 2))),
  ((5, 8), (4, 1), (1, 3), [(0, 3), 0], ((0, 3), (0, 0))),
]


@pytest.mark.parametrize("size,kernel,strides,padding,pairs", CASES)
def test_formulations_and_layouts_agree_with_loops(size, kernel, strides, padding, pairs):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3))
  conv = Conv(4, kernel, strides, padding, formulation="lax")
  params = conv.init(jax.random.key(1), x)["params"]
  params = {**params, "bias": jnp.arange(4.0)}
  expected = _oracle(np.asarray(x), np.asarray(params["kernel"]), strides, pairs) + np.arange(4.0)

  @jax.jit
  def run(params, x):
    results = {}
    for formulation, last in itertools.product(("lax", "patches"), (False, True)):
      module = conv.clone(formulation=formulation, batch_last=last)
      y = module.apply({"params": params}, jnp.swapaxes(x, 0, -1) if last else x)
      results[f"{formulation} {last}"] = jnp.swapaxes(y, 0, -1) if last else y
    return results

  for y in run(params, x).values():
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(
  "shape,kernel,strides", [((2, 7, 3), (5,), (1,)), ((2, 6, 5, 2), (3, 3), (2, 1))]
)
def test_gradients_of_the_formulations_agree(shape, kernel, strides):
  x = jax.random.normal(jax.random.key(0), shape)
  conv = Conv(4, kernel, strides, formulation="lax")
  variables = conv.init(jax.random.key(1), x)

  def gradients(formulation):
    loss = lambda v, x: jnp.sum(jnp.sin(conv.clone(formulation=formulation).apply(v, x)))
    return jax.jit(jax.grad(loss, (0, 1)))(variables, x)

  for a, b in zip(jax.tree.leaves(gradients("lax")), jax.tree.leaves(gradients("patches"))):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("size", [3, 5])
def test_cells_are_the_convolution_with_the_positions_of_each_pooling_window_first(size):
  x = jnp.round(jax.random.normal(jax.random.key(0), (2, 4, 6, 3)))
  conv = Conv(5, (size, size), kernel_init=lambda *a: jnp.round(jax.random.normal(*a)))
  variables = conv.init(jax.random.key(1), x)

  def pooled(cells):
    def run(variables, x):
      if not cells:
        return max_pool(conv.apply(variables, x), (2, 2))
      y = conv.clone(batch_last=True, cells=True).apply(variables, jnp.swapaxes(x, 0, -1))
      assert y.shape == (4, 5, 2, 3, 2)
      return jnp.swapaxes(max_first(y), 0, -1)

    loss = lambda v, x: jnp.sum(jnp.sin(run(v, x)))
    return jax.jit(lambda v, x: (run(v, x), jax.grad(loss, (0, 1))(v, x)))(variables, x)

  # Small whole numbers tie often: the first in row-major order has the gradient in both.
  for a, b in zip(jax.tree.leaves(pooled(False)), jax.tree.leaves(pooled(True))):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
  "conv,shape",
  [
    (Conv(1, (3, 3), batch_last=True, cells=True), (1, 3, 4, 2)),
    (Conv(1, (3, 3), cells=True), (2, 4, 4, 1)),
    (Conv(1, (2, 2), batch_last=True, cells=True), (1, 4, 4, 2)),
    (Conv(1, (3, 3), (2, 2), batch_last=True, cells=True), (1, 4, 4, 2)),
  ],
)
def test_cells_say_what_they_need(conv, shape):
  with pytest.raises(ValueError, match="cells needs batch_last, an odd square kernel, stride 1"):
    conv.init(jax.random.key(0), jnp.ones(shape))


def test_max_first_takes_nan_and_the_first_of_ties_and_differentiates_forward():
  x = jnp.array([[1.0, 2.0, 0.0], [1.0, jnp.nan, 5.0], [0.0, 3.0, 5.0]])
  best, tangent = jax.jvp(max_first, (x,), (jnp.arange(9.0).reshape(3, 3),))
  np.testing.assert_array_equal(best, [1.0, np.nan, 5.0])
  np.testing.assert_array_equal(tangent, [0.0, 4.0, 5.0])


def test_patches_differentiate_without_convolution_or_scatter():
  x = jnp.ones((2, 6, 6, 2))
  conv = Conv(3, (3, 3), (2, 2), 1, formulation="patches")
  variables = conv.init(jax.random.key(0), x)
  loss = lambda v, x: jnp.sum(conv.apply(v, x) ** 2)
  program = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, x))
  assert "dot_general" in program
  for slow in ("conv_general", "scatter", "gather"):
    assert slow not in program


def test_auto_takes_patches_on_cpu_where_they_are_small():
  def program(side):
    conv = Conv(4, (3, 3))
    x = jax.ShapeDtypeStruct((1, side, side, 64), jnp.float32)
    return str(jax.make_jaxpr(lambda x: conv.init(jax.random.key(0), x))(x))

  assert ("conv_general" not in program(8)) == (jax.default_backend() == "cpu")
  assert "conv_general" in program(64)


@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (1, 5, 3, 2), (2, 1, 1, 3), (1, 1, 8, 1)])
def test_winograd_is_the_convolution_and_so_are_its_derivatives(shape):
  keys = jax.random.split(jax.random.key(0), 3)
  x, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (3, 3, shape[-1], 4))
  plain = lambda x, kernel: conv_lax(x, kernel, (1, 1), ((1, 1), (1, 1)))
  cotangents = jax.random.normal(keys[2], (2, *shape[:-1], 4))
  assert_same_derivatives(conv_winograd, plain, (x, kernel), cotangents)


def _products(x, module):
  """How many matrix products a convolution of x is, 0 where it is XLA's own."""
  program = jax.make_jaxpr(lambda x: module.init(jax.random.key(0), x))(x)
  return str(program).count(" dot_general[")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the formulation of CPU")
def test_wide_3_x_3_convolutions_are_winograd_s_on_cpu_and_no_others():
  like = lambda *shape, kind=jnp.float32: jax.ShapeDtypeStruct(shape, kind)
  wide = Conv(128, (3, 3), padding=1)
  assert _products(like(1, 56, 56, 128), wide) == 16
  assert _products(like(1, 56, 56, 128), wide.clone(padding="SAME")) == 16
  others = {
    "narrow": (like(1, 56, 56, 127), wide),
    "narrow result": (like(1, 56, 56, 128), wide.clone(features=127)),
    "strided": (like(1, 56, 56, 128), wide.clone(strides=(2, 2))),
    "another padding": (like(1, 56, 56, 128), wide.clone(padding=0)),
    "another kernel": (like(1, 56, 56, 128), wide.clone(kernel=(1, 3))),
    "another type": (like(1, 56, 56, 128, kind=jnp.bfloat16), wide),
    "few cells": (like(1, 14, 14, 128), wide),
    "asked for": (like(1, 56, 56, 128), wide.clone(formulation="lax")),
  }
  assert {why: n for why, (x, m) in others.items() if (n := _products(x, m)) > 1} == {}


@pytest.mark.parametrize(
  "size,kernel,strides,padding",
  [
    ((5, 4), (3, 3), (1, 1), ((1, 1), (1, 1))),
    ((6, 7), (2, 3), (2, 1), ((0, 1), (1, 0))),
    ((9,), (3,), (2,), ((1, 1),)),
  ],
)
def test_a_kernel_s_gradient_row_by_row_is_the_derived_one(size, kernel, strides, padding):
  keys = jax.random.split(jax.random.key(0), 3)
  given = jax.random.normal(keys[0], (3, *size, 2)), jax.random.normal(keys[1], (*kernel, 2, 4))
  plain = lambda x, kernel: conv_lax(x, kernel, strides, padding)
  shape = jax.eval_shape(plain, *given).shape
  ours = lambda x, kernel: conv_by_row(x, kernel, strides, padding)
  assert_same_derivatives(ours, plain, given, jax.random.normal(keys[2], (2, *shape)))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the formulation of CPU")
@pytest.mark.parametrize(
  "channels,formulation,loops", [(64, "auto", 1), (63, "auto", 0), (64, "lax", 0)]
)
def test_large_convolutions_of_many_channels_have_it_on_cpu(channels, formulation, loops):
  conv = Conv(8, (3, 3), formulation=formulation)
  x = jax.ShapeDtypeStruct((2, 56, 56, channels), jnp.float32)
  params = jax.eval_shape(lambda x: conv.init(jax.random.key(0), x), x)
  slope = jax.grad(lambda params, x: jnp.sum(conv.apply(params, x) ** 2))
  assert str(jax.make_jaxpr(slope)(params, x)).count(" scan[") == loops


def test_bad_arguments_are_refused_with_a_sentence():
  x = jnp.ones((2, 4, 3))
  with pytest.raises(ValueError, match=r"rank 4, got shape \[2, 4, 3\]"):
    Conv(2, (3, 3)).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match=r"formulation is one of auto, lax, patches, got 'fft'"):
    Conv(2, (3,), formulation="fft").init(jax.random.key(0), x)
  with pytest.raises(ValueError, match=r"padding is 'SAME', 'VALID' or numbers, got 'FULL'"):
    Conv(2, (3,), padding="FULL").init(jax.random.key(0), x)


def test_max_pool_by_hand_cuts_the_remainder_off():
  x = jnp.arange(15.0).reshape(1, 3, 5, 1)
  np.testing.assert_array_equal(max_pool(x, (2, 2))[0, :, :, 0], [[6.0, 8.0]])
  np.testing.assert_array_equal(max_pool(x[:, :1], (2, 2))[0, :, :, 0], [[1.0, 3.0]])
  np.testing.assert_array_equal(max_pool(x[:, :, :1], (2, 2))[0, :, :, 0], [[5.0]])


def test_overlapping_max_pool_equals_reduce_window_with_its_gradient():
  x = -jnp.abs(jax.random.normal(jax.random.key(0), (2, 7, 6, 3)))  # negative: padding must not win

  def reference(x):
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)

  ours = lambda x: max_pool(x, (3, 3), (2, 2), 1)
  np.testing.assert_array_equal(ours(x), reference(x))
  loss = lambda pool: jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))(x)
  np.testing.assert_allclose(loss(ours), loss(reference), atol=1e-6)


def test_the_first_of_a_tie_gets_the_gradient():
  x = jnp.array([[1.0, 5.0, 0.0], [1.0, 5.0, 7.0]]).reshape(1, 2, 3, 1)
  grad = jax.grad(lambda x: jnp.sum(max_pool(x, (2, 3), (1, 1)) + max_pool(x, (2, 2))))(x)
  np.testing.assert_array_equal(grad[0, :, :, 0], [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def test_max_pool_passes_nan_on():
  x = jnp.array([jnp.nan, 1.0, 1.0, jnp.nan]).reshape(1, 4, 1)
  assert jnp.isnan(max_pool(x, (2,))).all()
