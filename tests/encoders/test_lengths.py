"""Rows that end early: what stands after the end, and how much of it there is, is never seen."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders
from mmfuse.core import Sequence

SHORT = 17  # of 22 steps: one halving each, to 9 and 11
LENGTH = jnp.array([SHORT, 22, 5, 0])
QUICK = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
MASK = jnp.array([True, True, True, False])
SMALL = {
  "conv1d": encoders.Conv1D(4, (3, 4), 3, segments=2),
  "conv1d_batch": encoders.Conv1D(4, (3,), 3, norm="batch", segments=2),
  "conv1d_group": encoders.Conv1D(3, (4,), 4, norm="group", pool="mean"),
  "conv1d_steps": encoders.Conv1D(4, (3,), 2, pool="none"),
  "gru": encoders.GRU(3),
  "lstm": encoders.LSTM(3, "mean"),
  "transformer": encoders.Transformer(4, 1, 2),
  "transformer_steps": encoders.Transformer(4, 1, 2, pool="none"),
  "frames": encoders.Frames(encoders.Conv2D(3, (3,), norm="batch"), segments=2),
  "embedding": encoders.Embedding(5, 3, 3),
}


def _values(name, seed=0):
  if name == "embedding":
    return jax.random.randint(jax.random.key(seed), (4, 22), 0, 5)
  shape = (2, 2, 1) if name == "frames" else (2,)
  return jax.random.normal(jax.random.key(seed), (4, 22, *shape))


def _with_after(x, value):
  """`x` with `value` from each row's length on."""
  valid = (np.arange(22)[None] < np.asarray(LENGTH)[:, None]).reshape(4, 22, *(1,) * (x.ndim - 2))
  return jnp.where(valid, x, jnp.asarray(value, x.dtype))


def test_steps_by_hand():
  x = jnp.arange(12.0).reshape(3, 4)
  values, valid = encoders.steps(Sequence(x.at[0, 2:].set(jnp.nan), jnp.array([2, 4, 0])))
  np.testing.assert_array_equal(values, [[0, 1, 0, 0], [4, 5, 6, 7], [0, 0, 0, 0]])
  np.testing.assert_array_equal(valid, [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
  values, valid = encoders.steps(x)
  assert values is x and valid.shape == (3, 4) and valid.all()
  assert encoders.as_array(x) is x
  with pytest.raises(ValueError, match=r"a sequence is \[B, T, ...\], got shape \[3\]"):
    encoders.steps(x[:, 0])


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"lstm", "transformer_steps"}))  # as their kin
def test_what_stands_after_the_end_is_not_seen(name):
  """NaN there reaches no feature, gradient or statistic; a row of length 0 is harmless."""
  module, x = SMALL[name], _values(name)
  junk = _with_after(x, 4 if name == "embedding" else jnp.nan)
  init = lambda x: module.init(jax.random.key(1), Sequence(x, LENGTH), MASK, train=False)
  variables = QUICK(init)(junk)
  rest = {k: v for k, v in variables.items() if k != "params"}

  @QUICK
  def run(x):
    def loss(params):
      h, new = module.apply(
        {"params": params, **rest},
        Sequence(x, LENGTH),
        MASK,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(2)},
      )
      return jnp.sum(jnp.sin(h)), (h, new)

    return jax.grad(loss, has_aux=True)(variables["params"])

  found = run(junk)
  chex.assert_tree_all_finite(found)
  chex.assert_trees_all_equal(found, run(_with_after(x, 0)))
  other = run(x.at[0, SHORT - 1].add(1))  # and the last step that counts is
  assert not np.allclose(found[1][0][0], other[1][0][0], atol=1e-5)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_row_is_what_it_is_without_padding(name):
  """Row 0 among longer ones gives the features of its own 17 steps as a plain array."""
  module, x = SMALL[name], _values(name)
  init = lambda x: module.init(jax.random.key(1), x, MASK, train=False)
  variables = QUICK(init)(x)
  run = QUICK(lambda v, x, mask: module.apply(v, x, mask, train=False))
  padded = run(variables, Sequence(_with_after(x, 1), LENGTH), MASK)[0]
  cut = variables
  if "positions" in variables["params"]:  # learned for every step there is
    params = {**variables["params"], "positions": variables["params"]["positions"][:, :SHORT]}
    cut = {"params": params}
  alone = run(cut, x[:1, :SHORT], MASK[:1])[0]
  if padded.ndim == 2:
    np.testing.assert_array_equal(padded[len(alone) :], 0)
    padded = padded[: len(alone)]
  np.testing.assert_allclose(padded, alone, atol=2e-6)


def test_a_stride_leaves_the_positions_that_cover_a_step():
  module = encoders.Conv1D(3, (3,), 5, norm="none", pool="none")
  x = Sequence(jnp.ones((4, 20, 2)), jnp.array([20, 7, 1, 0]))
  init = lambda x: module.init_with_output(jax.random.key(0), x, jnp.ones(4, bool), train=False)
  steps, _ = QUICK(init)(x)
  assert steps.shape == (4, 10, 3)
  np.testing.assert_array_equal((np.asarray(steps) != 0).any(-1).sum(1), [10, 4, 1, 0])


def test_windows_stand_where_they_stand_whatever_the_number_of_steps():
  """Window p of stride 2 is centred on steps 2p and 2p + 1; a patch is its own steps."""
  from mmfuse.encoders._conv1d import centred

  assert centred(20, 5, 2) == (1, 2) and centred(21, 5, 2) == (1, 3)
  assert centred(20, 5, 1) == (2, 2) and centred(7, 3, 3) == (0, 2)
  for steps in range(1, 12):
    for kernel, stride in ((5, 2), (3, 1), (2, 3), (4, 4)):
      low, high = centred(steps, kernel, stride)
      assert (steps + low + high - kernel) // stride + 1 == -(-steps // stride)


def test_norms_see_the_valid_steps_alone():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2)), jnp.float32)
  valid = jnp.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
  seen = np.asarray(x)[np.asarray(valid)]
  batch = encoders.Norm("batch")
  y, variables = QUICK(lambda: batch.init_with_output(jax.random.key(0), x, valid, train=True))()
  expected = (seen - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-5)
  np.testing.assert_allclose(np.asarray(y)[np.asarray(valid)], expected, atol=1e-5)
  _, new = QUICK(lambda: batch.apply(variables, x, valid, train=True, mutable=["batch_stats"]))()
  np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * seen.mean(0), atol=1e-6)
  group = encoders.Norm("group")
  y, _ = QUICK(lambda: group.init_with_output(jax.random.key(0), x, valid, train=True))()
  row = np.asarray(x)[0, :3]
  np.testing.assert_allclose(y[0, :3], (row - row.mean(0)) / np.sqrt(row.var(0) + 1e-5), atol=1e-5)
  assert np.isfinite(y).all()


@pytest.mark.parametrize(
  "module",
  [encoders.MLP(2, ()), encoders.Identity(), encoders.Conv2D(2, (2,))],
  ids=lambda m: type(m).__name__,
)
def test_encoders_of_arrays_get_zeros_after_the_end(module):
  x = _values("gru")
  init = lambda x: module.init_with_output(jax.random.key(1), x, MASK, train=False)[0]
  junk = Sequence(_with_after(x, jnp.nan), LENGTH)
  np.testing.assert_array_equal(QUICK(init)(junk), QUICK(init)(_with_after(x, 0)))
