"""Attention and dense layers with written gradients are what JAX derives of the plain ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.encoders._attend import attend
from mmfuse.encoders._dense import Dense
from mmfuse.encoders._transformer import Block


def _plain(q, k, v, allowed):
  scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
  shares = jax.nn.softmax(jnp.where(allowed[:, None], scores, -1e30))
  shares = jnp.where(allowed[:, None], shares, 0.0)
  return jnp.einsum("bhqk,bkhd->bqhd", shares, v)


def _inputs(dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 3)
  sizes = ((2, 3, 2, 4), (2, 5, 2, 4), (2, 5, 2, 3))  # v may have another width
  q, k, v = (3 * jax.random.normal(key, s, dtype) for key, s in zip(keys, sizes, strict=True))
  allowed = np.random.default_rng(0).random((2, 3, 5)) < 0.6
  allowed[1, 2] = False  # a query that may read nothing
  return q, k, v, jnp.asarray(allowed)


@pytest.mark.parametrize("everywhere", [False, True])
def test_attention_and_its_first_two_derivatives_are_those_of_the_formula(everywhere):
  *x, allowed = _inputs()
  allowed = jnp.ones_like(allowed) if everywhere else allowed
  weight = jnp.cos(jnp.arange(2 * 3 * 2 * 3.0)).reshape(2, 3, 2, 3)

  def found(f, allowed):
    loss = lambda *x: jnp.sum(weight * f(*x, allowed) ** 2)
    grads = lambda *x: jax.grad(loss, (0, 1, 2))(*x)
    again = lambda *x: sum(jnp.sum(jnp.sin(g)) for g in grads(*x))
    return f(*x, allowed), grads(*x), jax.grad(again, (0, 1, 2))(*x)

  mine = jax.jit(lambda: found(attend, None if everywhere else allowed))()
  theirs = jax.jit(lambda: found(_plain, allowed))()
  for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


def test_a_query_that_may_read_nothing_reads_zero_and_moves_nothing():
  q, k, v, allowed = _inputs()
  nothing = jnp.zeros_like(allowed)
  assert not np.any(attend(q, k, v, nothing))
  grads = jax.grad(lambda *x: jnp.sum(attend(*x, nothing) + 1.0) ** 2, (0, 1, 2))(q, k, v)
  assert not any(np.any(g) for g in grads)


def test_attention_of_half_precision_stays_in_it():
  q, k, v, allowed = _inputs(jnp.bfloat16)
  out, back = jax.vjp(lambda *x: attend(*x, allowed), q, k, v)
  assert out.dtype == jnp.bfloat16
  assert {g.dtype for g in back(out)} == {jnp.dtype(jnp.bfloat16)}
  wide = _plain(*(x.astype(jnp.float32) for x in (q, k, v)), allowed)
  np.testing.assert_allclose(out.astype(jnp.float32), wide, atol=0.1)


@pytest.mark.parametrize("features", [2, 12])  # its gradient has two orders of the product
@pytest.mark.parametrize("shape", [(6, 5), (1, 20), (2, 3, 5), (2, 1, 3, 5)])
def test_dense_is_flax_dense(features, shape):
  x = jax.random.normal(jax.random.key(0), shape)
  mine, theirs = Dense(features), nn.Dense(features)
  params = theirs.init(jax.random.key(1), x)
  same = mine.init(jax.random.key(1), x)
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
    np.testing.assert_array_equal(a, b)

  def found(module):
    loss = lambda params, x: jnp.sum(module.apply(params, x) ** 3)
    grads = lambda params, x: jax.grad(loss, (0, 1))(params, x)
    again = lambda params, x: sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(grads(params, x)))
    return module.apply(params, x), grads(params, x), jax.grad(again, (0, 1))(params, x)

  for a, b in zip(jax.tree.leaves(found(mine)), jax.tree.leaves(found(theirs)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


def test_dense_computes_in_the_type_that_flax_chooses():
  x = jnp.ones((2, 3, 5), jnp.bfloat16)
  module = Dense(4, dtype=jnp.bfloat16)
  params = module.init(jax.random.key(0), x)
  assert module.apply(params, x).dtype == jnp.bfloat16
  assert jax.tree.leaves(params)[0].dtype == jnp.float32


def test_the_first_positions_of_a_block_are_those_of_all():
  x = jax.random.normal(jax.random.key(0), (2, 5, 4))
  valid = jnp.array([[True] * 5, [True, True, False, False, False]])
  keep = jax.random.bernoulli(jax.random.key(1), 0.5, (2, 2, 5, 4))
  block = Block(2, 0.5)
  params = block.init(jax.random.key(2), x, valid, train=False)

  def found(first):
    apply = lambda params: block.apply(params, x, valid, keep=keep, first=first, train=True)[:, :2]
    return apply(params), jax.grad(lambda p: jnp.sum(apply(p) ** 2))(params)

  for a, b in zip(jax.tree.leaves(found(2)), jax.tree.leaves(found(None)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_is_not_read_of_the_last_block_is_not_computed():
  x, mask = jnp.ones((2, 40, 3)), jnp.ones(2, bool)

  def flops(pool):
    module = encoders.Transformer(8, 1, 2, dropout=0.0, pool=pool)
    params = module.init(jax.random.key(0), x, mask, train=False)
    apply = lambda params: module.apply(params, x, mask, train=False)
    return jax.jit(apply).lower(params).compile().cost_analysis()["flops"]

  assert flops("token") < 0.6 * flops("mean")


def test_a_gradient_of_an_encoder_has_a_directional_derivative():
  """What lfm takes; `jax.jvp` of the encoder itself is what written gradients cost."""
  module = encoders.Transformer(4, 1, 2, dropout=0.0)
  x, mask = jax.random.normal(jax.random.key(0), (2, 3, 2)), jnp.ones(2, bool)
  params = module.init(jax.random.key(1), x, mask, train=False)
  slope = jax.grad(lambda p: jnp.sum(jnp.sin(module.apply(p, x, mask, train=False))))
  along = jax.tree.map(jnp.ones_like, params)
  _, turned = jax.jvp(slope, (params,), (along,))
  total = lambda p: sum(jnp.sum(g) for g in jax.tree.leaves(slope(p)))  # in reverse: <slope, along>
  for a, b in zip(*map(jax.tree.leaves, (turned, jax.grad(total)(params))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
