"""The product of experts as a function: what it equals, what it ignores, who may be missing."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import masks
from mmfuse.fusion import product_logits

RNG = np.random.default_rng(0)
LOGITS = {e: jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for e in ("image", "joint", "text")}
ALL = masks.full(LOGITS, 4)


def test_by_hand():
  """(.5, .5) x (.8, .2) = (.8, .2): a uniform expert has no say; twice (.8, .2) = (16, 1) / 17."""
  sure = jnp.log(jnp.asarray([[0.8, 0.2]]))
  here = jnp.ones(1, bool)
  found = product_logits({"a": jnp.zeros((1, 2)), "b": sure}, {"a": here, "b": here})
  np.testing.assert_allclose(jnp.exp(found), [[0.8, 0.2]], rtol=1e-6)
  found = product_logits({"a": sure, "b": sure}, {"a": here, "b": here})
  np.testing.assert_allclose(jnp.exp(found), [[16 / 17, 1 / 17]], rtol=1e-6)


def test_is_the_distribution_of_the_summed_logits():
  found = product_logits(LOGITS, ALL)
  np.testing.assert_allclose(found, jax.nn.log_softmax(sum(LOGITS.values())), atol=1e-6)
  shifted = {e: z + RNG.normal(size=(4, 1)).astype(np.float32) for e, z in LOGITS.items()}
  np.testing.assert_allclose(found, product_logits(shifted, ALL), atol=1e-5)


def test_every_expert_gets_the_same_gradient():
  label = jnp.asarray([0, 1, 2, 0])
  loss = lambda z: -jnp.mean(jnp.take_along_axis(product_logits(z, ALL), label[:, None], 1))
  grads = jax.grad(loss)(LOGITS)
  expected = (jnp.exp(product_logits(LOGITS, ALL)) - jax.nn.one_hot(label, 3)) / 4
  for g in grads.values():
    np.testing.assert_allclose(g, expected, atol=1e-6)


def test_an_absent_expert_has_no_vote_and_no_gradient():
  mask = {**ALL, "joint": jnp.asarray([True, False, True, True])}
  noisy = {**LOGITS, "joint": LOGITS["joint"].at[1].set(jnp.nan)}
  rest = {e: z for e, z in LOGITS.items() if e != "joint"}
  found = product_logits(noisy, mask)
  np.testing.assert_allclose(found[1], product_logits(rest, ALL)[1], atol=1e-6)
  grads = jax.grad(lambda z: product_logits(z, mask)[:, 0].sum())(LOGITS)
  assert not grads["joint"][1].any() and grads["joint"][0].any()
  nobody = product_logits(LOGITS, {e: jnp.zeros(4, bool) for e in LOGITS})
  np.testing.assert_allclose(nobody, -jnp.log(3.0) * jnp.ones((4, 3)), rtol=1e-6)
