"""Decoders: the transposed convolution against XLA's, and every encoder mirrored to the shape it reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.core import Unavailable
from mmfuse.encoders._up_conv import UpConv, up_conv, up_conv_last


@pytest.mark.parametrize("size, kernel", [((7, 8), 3), ((4, 5), 5), ((3, 3), 1)])
def test_a_transposed_convolution_is_that_of_xla(size, kernel):
  """y[o] = sum x[i] W[t] over o = 2 i - p + t: the convolution that an inserted zero would make."""
  rng = np.random.default_rng(0)
  h, w = (-(-n // 2) for n in size)
  x = rng.normal(size=(2, h, w, 3)).astype(np.float32)
  k = rng.normal(size=(kernel, kernel, 3, 4)).astype(np.float32)
  pad = (kernel - 1) // 2

  def run(x, k):
    spread = jax.lax.conv_general_dilated(
      x,
      k[::-1, ::-1],
      (1, 1),
      [(kernel - 1 - pad, kernel - pad)] * 2,
      lhs_dilation=(2, 2),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    turned = up_conv_last(x.transpose(3, 1, 2, 0), k, (2, 2), size).transpose(3, 1, 2, 0)
    return up_conv(x, k, (2, 2), size), turned, spread[:, : size[0], : size[1]]

  def loss(which):
    return lambda x, k: jnp.sum(jnp.sin(run(x, k)[which]))

  first, turned, theirs = jax.jit(run)(x, k)
  grads = jax.jit(lambda x, k: [jax.grad(loss(i), (0, 1))(x, k) for i in range(3)])(x, k)
  for ours, of in ((first, grads[0]), (turned, grads[1])):
    assert ours.shape == (2, *size, 4)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for a, b in zip(of, grads[2], strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(6, 5), (3, 9), (3, 3)])  # both axes grow, one of them, none
def test_both_orders_of_axes_are_one_layer(size):
  x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
  first, last = UpConv(5, 3, size), UpConv(5, 3, size, batch_last=True)
  params = first.init(jax.random.key(1), x)
  params = jax.tree.map(lambda p: p + 0.1, params)  # a bias that is there
  turned = last.apply(params, x.transpose(3, 1, 2, 0)).transpose(3, 1, 2, 0)
  np.testing.assert_allclose(first.apply(params, x), turned, rtol=1e-4, atol=1e-5)


SHAPES = {
  "mlp": (encoders.MLP(5, (7,)), (6,)),
  "linear": (encoders.MLP(5, (), "none"), (3, 2)),
  "image": (encoders.Conv2D(4, (2, 3)), (14, 9, 3)),
  "grey": (encoders.Conv2D(4, (2, 3), norm="none"), (7, 7)),
  "large": (encoders.Conv2D(4, (2,), side=4), (17, 9, 1)),
  "sequence": (encoders.Conv1D(4), (6, 2)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_decoder_has_the_shape_that_its_encoder_reads(name):
  encoder, shape = SHAPES[name]
  decoder = encoders.mirrored(encoder, shape)
  z = jax.ShapeDtypeStruct((5, 3), jnp.float32)
  out, variables = jax.eval_shape(functools.partial(decoder.init_with_output, jax.random.key(0)), z)
  assert out.shape == (5, *shape)
  norms = [p for p in variables["params"] if p.startswith("norm")]
  assert bool(norms) == (getattr(encoder, "norm", "layer") != "none")
  if name == "mlp":
    widths = [variables["params"][n]["kernel"].shape[1] for n in ("dense0", "dense1", "out")]
    assert widths == [5, 7, 6]


def test_tokens_are_told_apart_as_the_encoder_does():
  assert encoders.token_classes(encoders.Embedding(9), "text") == 10
  with pytest.raises(Unavailable, match="'text' holds tokens"):
    encoders.token_classes(encoders.MLP(), "text")
