"""MulT's encoders side by side: what each of them would say alone, whatever the numbers of steps."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.core import Sequence
from mmfuse.encoders._dense import Dense
from mmfuse.fusion import MulT
from mmfuse.fusion._features import sequences
from mmfuse.fusion._mult import CrossEncoder, last

ROWS, WIDTH = 5, 4
HEAD = MulT(WIDTH, 2, 1, 1)


def problem(steps):
  """(features, mask); of `b` the first row is absent."""
  keys = jax.random.split(jax.random.key(0), len(steps))
  features = {
    m: jax.random.normal(k, (ROWS, t, 3)) for m, t, k in zip("abcd", steps, keys, strict=False)
  }
  mask = {m: jnp.ones(ROWS, bool) for m in features}
  return features, {**mask, "b": mask["b"].at[0].set(False)}


def one_by_one(params, features, mask):
  """The equations: every pair's encoder by itself, then every modality's."""
  encoder = CrossEncoder(1, 2)
  x = {
    m: h._replace(
      values=Dense(WIDTH, use_bias=False).apply({"params": params[f"project_{m}"]}, h.values)
    )
    for m, h in sequences(features, mask).items()
  }
  at = lambda name, *place: {"params": jax.tree.map(lambda p: p[place], params[name])}
  read = []
  for i, m in enumerate(x):
    streams = [encoder.apply(at("cross", i, j), x[m], x[n], train=False) for j, n in enumerate(x)]
    both = Sequence(jnp.concatenate(streams, -1), x[m].length)
    h = last(encoder.apply(at("memory", i), both, None, train=False), both.length)
    read.append(jnp.where(mask[m][:, None], h, 0.0))
  o = jnp.concatenate(read, -1)
  dense = lambda name, h: h @ params[name]["kernel"] + params[name]["bias"][None]
  return dense("out", o + dense("down", nn.relu(dense("up", o))))


def heads(params, features, mask):
  return HEAD.apply({"params": params}, features, mask, num_classes=3, train=False)[0]


@functools.cache
def start(steps):
  return jax.jit(functools.partial(HEAD.init, num_classes=3, train=False))(
    jax.random.key(1), *problem(steps)
  )["params"]


@pytest.mark.parametrize("steps", [(2, 2), (2, 3, 2)])
def test_side_by_side_is_one_by_one(steps):
  params, given = start(steps), problem(steps)
  kernel = params["cross"]["attention_0"]["query"]["kernel"]
  assert kernel.shape == (len(steps), len(steps), WIDTH, WIDTH)
  assert np.isclose(kernel.std(), WIDTH**-0.5, rtol=0.5)  # each drawn for itself
  assert len(np.unique(kernel)) == kernel.size
  found, want = jax.jit(lambda p: [of(p, *given) for of in (heads, one_by_one)])(params)
  np.testing.assert_allclose(found, want, atol=1e-5)


def test_gradients_of_encoders_of_other_numbers_of_steps():
  params, given = start((2, 3)), problem((2, 3))
  pull = lambda of: lambda p: jax.grad(lambda p: jnp.square(of(p, *given)).sum())(p)
  found, want = jax.jit(lambda p: [pull(of)(p) for of in (heads, one_by_one)])(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, want)


def test_each_encoder_drops_for_itself():
  features, mask = problem((2, 2))
  head, params = MulT(WIDTH, 2, 1, 1, dropout=0.5), {"params": start((2, 2))}
  say = jax.jit(
    lambda key: head.apply(
      params, features, mask, num_classes=3, train=True, rngs={"dropout": key}
    )[0]
  )
  one, again, other = (say(jax.random.key(k)) for k in (2, 2, 3))
  np.testing.assert_array_equal(one, again)
  assert (one != other).any()
