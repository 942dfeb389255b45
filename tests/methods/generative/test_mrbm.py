"""Invariants of the multimodal RBM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.generative import mrbm
from mmfuse.methods.generative.mrbm import _enumerate, _mrbm, _multi_prediction

WIDTHS = {"a": 3, "b": 4}
ROWS = 6


def problem(widths=WIDTHS, scale=20.0):
  means = {m: jnp.full(d, 0.4) for m, d in widths.items()}
  params = mrbm.init_mrbm(jax.random.key(0), means, 5)
  params = {
    m: {k: scale * v if k == "kernel" else v for k, v in p.items()} for m, p in params.items()
  }
  rng = np.random.default_rng(0)
  x = {m: jnp.asarray(rng.integers(0, 2, (ROWS, d)), jnp.float32) for m, d in widths.items()}
  return params, x


def objective(params, x, revealed, weight, **options):
  settings = {"steps": 3, "nstop": 3, "sparsity_weight": 0.0, "l2": 0.0}
  return mrbm.multi_prediction(
    params, x, revealed, weight, share=dict.fromkeys(x, 0.0), **{**settings, **options}
  )


def test_everything_revealed_has_no_gradient():
  params, x = problem()
  ones = jax.tree.map(jnp.ones_like, x)
  grads = jax.grad(objective)(params, x, ones, jnp.ones(ROWS))
  assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(grads))


def test_a_modality_alone_counts_twice():
  params, x = problem()
  mask = {"a": jnp.ones(ROWS, bool), "b": jnp.zeros(ROWS, bool)}
  h, _ = mrbm.infer(params, x, mask, 0)
  want = jax.nn.sigmoid(2 * x["a"] @ params["a"]["kernel"])
  np.testing.assert_allclose(h, want, rtol=1e-5)


def test_absent_content_is_not_read_and_complete_rows_are_exact():
  params, x = problem({"a": 3, "b": 4, "c": 2})
  mask = {"a": jnp.arange(ROWS) % 2 == 0, "b": jnp.ones(ROWS, bool), "c": jnp.ones(ROWS, bool)}
  h, _ = mrbm.infer(params, x, mask)
  poisoned = {**x, "a": jnp.where(mask["a"][:, None], x["a"], jnp.nan)}
  np.testing.assert_array_equal(h, mrbm.infer(params, poisoned, mask)[0])
  np.testing.assert_allclose(h[::2], _mrbm.hidden_given(params, x)[::2], rtol=1e-5)


def test_truncation_is_traced_and_changes_the_gradient():
  params, x = problem()
  none, traces = jax.tree.map(jnp.zeros_like, x), []

  @jax.jit
  def gradient(nstop):
    traces.append(1)
    return jax.grad(objective)(params, x, none, jnp.ones(ROWS), nstop=nstop)["a"]["kernel"]

  found = [gradient(jnp.int32(n)) for n in (0, 1, 3, 7)]
  assert len(traces) == 1
  assert float(jnp.abs(found[0] - found[2]).max()) > 1e-4
  np.testing.assert_array_equal(found[2], found[3])


def test_rows_without_weight_do_not_count():
  params, x = problem()
  none = jax.tree.map(jnp.zeros_like, x)
  weight = (jnp.arange(ROWS) < 4).astype(jnp.float32)
  kept = objective(params, x, none, weight)
  few = objective(
    params, {m: v[:4] for m, v in x.items()}, {m: v[:4] for m, v in none.items()}, jnp.ones(4)
  )
  np.testing.assert_allclose(kept, few, rtol=1e-5)


@pytest.mark.slow
def test_without_weights_the_information_is_that_of_each_alone():
  params, x = problem()
  assert float(mrbm.exact(params, x)["variation_of_information"]) >= 0
  flat = mrbm.exact(problem(scale=0.0)[0], x)
  own = sum(float(h) for h in flat["entropies"].values())
  np.testing.assert_allclose(float(flat["variation_of_information"]), own, rtol=1e-5)
  np.testing.assert_allclose(float(flat["vi_loss"]), float(flat["ml_loss"]), rtol=1e-5)


def test_log_likelihood_of_a_half():
  got = _multi_prediction.log_likelihood(jnp.array([0.0, 1.0, 0.5]), jnp.zeros(3))
  np.testing.assert_allclose(got, -np.log(2) * np.ones(3), rtol=1e-6)


def test_likelihood_splits_into_conditional_and_marginal():
  """log P(a, b) = log P(a | b) + log P(b), and the marginal by summing the table of the joint."""
  params, x = problem()
  found = mrbm.exact(params, x)
  table = np.asarray(_enumerate.log_joint_table(params)[0])  # [2^D_a, 2^D_b]
  code = np.asarray(x["b"]) @ 2 ** np.arange(WIDTHS["b"])
  marginal = np.log(np.exp(table).sum(0))[code.astype(int)]
  np.testing.assert_allclose(
    found["log_joint"], found["log_conditional"]["a"] + marginal, rtol=1e-4
  )


def test_swapped_modalities_have_the_same_loss():
  params, x = problem({"a": 4, "b": 4})
  swap = lambda tree: {**tree, "a": tree["b"], "b": tree["a"]}
  none = jax.tree.map(jnp.zeros_like, x)
  one = objective(params, x, none, jnp.ones(ROWS))
  np.testing.assert_allclose(objective(swap(params), swap(x), none, jnp.ones(ROWS)), one, rtol=1e-6)
