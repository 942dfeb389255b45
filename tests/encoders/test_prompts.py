"""Read-only prompts: the tokens are as they were, bit for bit, and the prompts read all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.core import Sequence
from mmfuse.encoders import Transformer

X = jax.random.normal(jax.random.key(0), (3, 5, 2))
MASK = jnp.ones(3, bool)
SMALL = functools.partial(Transformer, 4, 2, 2, dropout=0.5)


def made(module, x=X):
  return jax.jit(lambda: module.init(jax.random.key(1), x, MASK, train=False))()["params"]


def run(module, params, x=X, train=False):
  apply = lambda params, x: module.apply(
    {"params": params}, x, MASK, train=train, rngs={"dropout": jax.random.key(2)}
  )
  return jax.jit(apply)(params, x)


def without(params):
  return {k: v for k, v in params.items() if k != "prompts"}


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("train", [False, True])
def test_the_embedding_is_the_one_without_prompts_bit_for_bit(pool, train):
  """In training too: dropout draws for the tokens what it draws without prompts."""
  module = SMALL(pool=pool, prompts=3)
  params = made(module)
  assert params["prompts"].shape == (3, 4)
  x = Sequence(X, jnp.array([5, 2, 0]))
  out = run(module, params, x, train)
  assert out.shape == (3, 4, 4)
  plain = run(SMALL(pool=pool), without(params), x, train)
  np.testing.assert_array_equal(out[:, 0], plain)
  moved = run(module, {**params, "prompts": 100 * params["prompts"] + 1}, x, train)
  np.testing.assert_array_equal(moved[:, 0], plain)
  assert not np.allclose(moved[:, 1:], out[:, 1:])


def test_parameters_are_those_without_prompts_and_the_prompts():
  params = made(SMALL(prompts=2))
  jax.tree.map(np.testing.assert_array_equal, without(params), made(SMALL()))


def test_positions_begin_as_wide_as_they_are_told():
  narrow, wide = (made(Transformer(32, 0, pool="mean", position_std=s)) for s in (0.02, 1.0))
  np.testing.assert_allclose(wide["positions"], 50 * narrow["positions"], rtol=1e-5)


def test_prompts_read_every_step_that_counts_and_each_other():
  module = Transformer(4, 1, 2, pool="mean", prompts=2)
  params = made(module)

  def first(x, prompts):
    full = {**params, "prompts": prompts}
    return module.apply({"params": full}, Sequence(x, jnp.array([5, 3, 1])), MASK, train=False)[
      :, 1
    ]

  weights = jnp.arange(1.0, 5.0)  # the sum over a normalised vector is constant
  reads = jax.jit(jax.jacobian(lambda *a: (first(*a) * weights[None]).sum(-1), (0, 1)))
  of_x, of_prompts = reads(X, params["prompts"])
  seen = np.abs(of_x).max(-1)  # [B, B, T]
  for row, length in enumerate((5, 3, 1)):
    assert (seen[row, row, :length] > 0).all() and not seen[row, row, length:].any()
    assert not np.delete(seen[row], row, 0).any()
  assert (np.abs(of_prompts).max(-1) > 0).all()


def test_what_stands_in_a_row_without_steps_is_finite():
  x = Sequence(jnp.full_like(X, jnp.nan), jnp.array([0, 0, 0]))
  module = SMALL(pool="mean", prompts=1)
  assert np.isfinite(run(module, made(module), x)).all()


@pytest.mark.parametrize("options", [{"prompts": -1}, {"prompts": 1, "pool": "none"}])
def test_impossible_prompts_are_refused(options):
  with pytest.raises(ValueError, match="prompts are at least 0 and need a pool"):
    SMALL(**options).init(jax.random.key(0), X, MASK, train=False)
