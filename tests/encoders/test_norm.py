"""encoders.Norm: hand-computed numbers, then masks, running statistics and layouts."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.encoders import Norm
from mmfuse.encoders._batch_norm import batch_norm, batch_norm_of_cells
from mmfuse.encoders._moments import along
from mmfuse.encoders._norm import layer_norm
from tests.encoders.derivatives import assert_same_derivatives

X = jnp.array([[1.0, 0.0], [3.0, 4.0], [100.0, -7.0]])
MASK = jnp.array([True, True, False])


def _init(kind, x, mask):
  module = Norm(kind)
  return module, module.init(jax.random.key(0), x, mask, train=False)


def test_batch_norm_by_hand_with_one_row_absent():
  module, variables = _init("batch", X, MASK)
  y, new = module.apply(variables, X, MASK, train=True, mutable=["batch_stats"])
  # present rows: means 2 and 2, biased variances 1 and 4
  np.testing.assert_allclose(y[:2], [[-1.0, -1.0], [1.0, 1.0]], atol=1e-4)
  np.testing.assert_allclose(new["batch_stats"]["mean"], [0.2, 0.2], atol=1e-6)
  np.testing.assert_allclose(new["batch_stats"]["var"], [0.9 + 0.1, 0.9 + 0.4], atol=1e-6)


def test_batch_norm_in_evaluation_reads_the_running_statistics():
  module, variables = _init("batch", X, MASK)
  stats = {"mean": jnp.array([1.0, 2.0]), "var": jnp.array([4.0, 0.25])}
  y = module.apply({**variables, "batch_stats": stats}, X, MASK, train=False)
  np.testing.assert_allclose(y[1], [1.0, 4.0], atol=1e-4)


def test_nobody_present_is_finite_and_keeps_the_statistics():
  module, variables = _init("batch", X, MASK)
  stats = {"mean": jnp.array([1.5, 2.5]), "var": jnp.array([4.0, 0.25])}
  nobody = jnp.zeros(3, bool)

  def total(x):
    y, new = module.apply(
      {**variables, "batch_stats": stats}, x, nobody, train=True, mutable=["batch_stats"]
    )
    return jnp.sum(y**2), new

  for x in (X, jnp.zeros_like(X)):
    (value, new), grad = jax.value_and_grad(total, has_aux=True)(x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(grad).all()
    chex.assert_trees_all_equal(new["batch_stats"], stats)


def test_layer_norm_by_hand():
  module, variables = _init("layer", X, MASK)
  y = module.apply(variables, X, MASK, train=True)
  np.testing.assert_allclose(y, [[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]], atol=1e-4)


def test_group_norm_normalises_each_row_and_group():
  x = jax.random.normal(jax.random.key(1), (2, 3, 64)) * 5 + 2
  module, variables = _init("group", x, jnp.ones(2, bool))
  y = np.asarray(module.apply(variables, x, jnp.ones(2, bool), train=True))
  groups = y.reshape(2, 3, 32, 2)
  np.testing.assert_allclose(groups.mean((1, 3)), 0, atol=1e-5)
  np.testing.assert_allclose(groups.var((1, 3)), 1, atol=1e-3)


def test_none_has_no_parameters_and_unknown_is_refused():
  module, variables = _init("none", X, MASK)
  assert not variables
  chex.assert_trees_all_equal(module.apply(variables, X, MASK, train=True), X)
  with pytest.raises(
    ValueError, match=r"norm is one of layer, batch, group, instance, none, got 'weight'"
  ):
    _init("weight", X, MASK)


@pytest.mark.parametrize("kind", ["layer", "batch", "group"])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_channel_is_the_same_norm_in_another_layout(kind, channel):
  x = jax.random.normal(jax.random.key(2), (3, 4, 5, 6))
  turn = lambda x: jnp.moveaxis(x, (0, -1), (-1, channel))
  back = lambda x: jnp.moveaxis(x, (-1, channel), (0, -1))
  variables = jax.jit(lambda x: _init(kind, x, MASK)[1])(x)

  @jax.jit
  def run(x):
    y, new = Norm(kind).apply(variables, x, MASK, train=True, mutable=["batch_stats"])
    z, other = Norm(kind, channel).apply(
      variables, turn(x), MASK, train=True, mutable=["batch_stats"]
    )
    return y, back(z), new, other

  y, z, new, other = run(x)
  np.testing.assert_allclose(y, z, atol=1e-5)
  chex.assert_trees_all_close(new, other, atol=1e-6)


@pytest.mark.parametrize("channel", [0, 1, 3])
def test_the_written_gradient_of_layer_norm_is_the_derived_one(channel):
  x = jax.random.normal(jax.random.key(3), (4, 5, 6, 7)) * 3 + 2
  keys = jax.random.split(jax.random.key(4), 3)
  scale, bias = (jax.random.normal(k, x.shape[channel]) for k in keys[:2])
  given = (x, scale, bias)
  cotangents = jax.random.normal(keys[2], (3, *x.shape))

  def plain(x, scale, bias):
    centred = x - x.mean(channel, keepdims=True)
    normal = centred / jnp.sqrt(jnp.square(centred).mean(channel, keepdims=True) + 1e-5)
    return normal * along(scale, channel, 4) + along(bias, channel, 4)

  assert_same_derivatives(lambda *given: layer_norm(*given, channel), plain, given, cotangents)


def _derived(x, scale, bias, mask, channel):
  """Batch norm that JAX differentiates, of one row or more present."""
  others = tuple(a for a in range(x.ndim) if a != channel)
  rows = along(mask, 0 if channel == x.ndim - 1 else -1, x.ndim)
  mean = x.mean(others, keepdims=True, where=rows)
  var = jnp.square(x - mean).mean(others, keepdims=True, where=rows)
  put = functools.partial(along, axis=channel, ndim=x.ndim)
  return (x - mean) / jnp.sqrt(var + 1e-5) * put(scale) + put(bias)


@pytest.mark.parametrize("channel,cells", [(3, False), (0, False), (1, False), (1, True)])
def test_the_written_gradient_of_batch_norm_is_the_derived_one(channel, cells):
  x = jax.random.normal(jax.random.key(5), (4, 5, 6, 7)) * 3 + 2
  scale = jnp.linspace(-1.0, 2.0, x.shape[channel])
  given = (x, scale, jnp.sin(5.0 * scale))
  mask = jnp.arange(x.shape[0 if channel == 3 else 3]) % 3 != 1

  def ours(x, scale, bias):
    if cells:
      return batch_norm_of_cells(x, scale, bias, mask)[0]
    return batch_norm(x, scale, bias, mask, channel)[0]

  def plain(*given):
    y = _derived(*given, mask, channel)
    return jnp.max(nn.relu(y), 0) if cells else y

  shape = jax.eval_shape(plain, *given).shape
  assert_same_derivatives(ours, plain, given, jax.random.normal(jax.random.key(6), (2, *shape)))


def test_of_entries_of_a_cell_that_tie_the_first_has_the_gradient():
  x = jnp.array([[1.0, 3.0], [3.0, 3.0], [3.0, -9.0], [0.0, 1.0]])[:, None, :]  # [K, C, B]
  run = lambda x: batch_norm_of_cells(x, jnp.ones(1), jnp.ones(1), jnp.ones(2, bool))[0]
  both = lambda x: jnp.max(nn.relu(_derived(x, jnp.ones(1), jnp.ones(1), jnp.ones(2, bool), 1)), 0)
  np.testing.assert_allclose(run(x), both(x), atol=1e-5)
  first = x.at[1, 0, 0].add(1e-3).at[0, 0, 1].add(1e-3)  # the tie broken in favour of the first
  expected = jax.grad(lambda x: jnp.sum(both(x)))(first)
  np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(run(x)))(x), expected, atol=1e-3)


@pytest.mark.parametrize("channel", [-1, 0, 1])
def test_passes_side_by_side_are_passes_one_after_the_other(channel):
  x = np.random.default_rng(0).normal(size=(3, 4, 2, 2, 5)).astype(np.float32)  # V, B, ..., C
  x[1] = 3 * x[1] + 1
  places = {-1: (0, 1, 2, 3), 0: (3, 1, 2, 0), 1: (1, 3, 2, 0)}[channel]
  laid = lambda rows: jnp.asarray(rows.transpose(places))
  mask = jnp.asarray([True, False, True, True])
  module = Norm("batch", channel)
  variables = module.init(jax.random.key(0), laid(x[0]), mask, train=False)
  params = {"scale": jnp.arange(1.0, 6.0), "bias": jnp.arange(5.0)}
  apply = lambda module, rows, stats: module.apply(
    {"params": params, "batch_stats": stats}, laid(rows), mask, train=True, mutable=["batch_stats"]
  )
  stats, alone = variables["batch_stats"], []
  for rows in x:
    y, new = apply(module, rows, stats)
    stats = new["batch_stats"]
    alone.append(y)
  views = Norm("batch", channel, views=3)
  together, new = apply(views, x.reshape(-1, *x.shape[2:]), variables["batch_stats"])
  row = 0 if channel == -1 else together.ndim - 1
  np.testing.assert_allclose(together, np.concatenate(alone, row), atol=1e-5)
  chex.assert_trees_all_close(new["batch_stats"], stats, atol=1e-6)
  nobody = views.apply(
    {"params": params, "batch_stats": stats},
    laid(x.reshape(-1, *x.shape[2:])),
    jnp.zeros(4, bool),
    train=True,
    mutable=["batch_stats"],
  )
  chex.assert_trees_all_equal(nobody[1]["batch_stats"], stats)


@pytest.mark.parametrize("kind", ["layer", "group", "instance", "none"])
def test_no_mask_is_a_mask_of_all(kind):
  x = jax.random.normal(jax.random.key(0), (2, 3, 4))
  module = Norm(kind)
  params = module.init(jax.random.key(1), x, None, train=True)
  found = [module.apply(params, x, mask, train=True) for mask in (None, jnp.ones(2, bool))]
  np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_cells_are_pooled_after_any_norm_and_say_what_they_need(kind):
  x, mask = jax.random.normal(jax.random.key(0), (4, 3, 2, 2, 5)), jnp.arange(5) != 2
  plain, module = Norm(kind, 1), Norm(kind, 1, cells=True)
  variables = plain.init(jax.random.key(1), x, mask, train=False)
  for train in (True, False):
    apply = lambda m, train=train: m.apply(variables, x, mask, train=train, mutable=["batch_stats"])
    (y, new), (pooled, other) = apply(plain), apply(module)
    np.testing.assert_allclose(pooled, nn.relu(y).max(0), atol=1e-6)
    chex.assert_trees_all_close(new, other, atol=1e-6)
  with pytest.raises(ValueError, match=r"cells needs x \[K, C, ..., B\] and channel 1, got"):
    Norm(kind, cells=True).init(jax.random.key(1), x, mask, train=False)
