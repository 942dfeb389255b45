"""LFM: the update of its weight between epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import train, tree
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _lfm
from mmfuse.methods.balancing import _lfm_loss as loss

from .. import _small


def make(**options):
  method = METHODS["lfm"](_small.model(), **options)
  return method, _small.start(method)


def test_gradient_is_the_hessian_times_the_gradient():
  _, state = make(a1=0.4)
  given = _small.batch()

  def losses(params):
    kept = {"params": params, "stats": state.stats}
    outputs = train.outputs_of(_small.model(), kept, given.inputs, given.mask)
    return loss.lfm_losses(outputs, given)

  def slope(params):  # g_total . v, v constant: its gradient is H v
    total = jax.grad(lambda p: 0.6 * losses(p)[0] + 0.4 * losses(p)[1])(params)
    return tree.dot(total, jax.lax.stop_gradient(jax.grad(lambda p: losses(p)[0])(params)))

  product = jax.jit(jax.grad(slope))(state.params)
  kernel = next(x for x in jax.tree.leaves(product["a"]) if x.ndim > 1)
  got = train.on_batch(_lfm.AlignmentGradient(_small.model()), state, given)
  np.testing.assert_allclose(got, kernel.mean(), rtol=1e-4, atol=1e-8)


def test_update_steps_against_the_gradient_halves_the_rate_and_clips():
  method, state = make(a1=0.3, a1_rate=0.5)
  update = method.phases[0].begin
  assert method.phases[0].epoch_end is update
  rows = next(_small.splits().validation.batches(12, np.arange(12)))
  slope = float(train.on_batch(_lfm.AlignmentGradient(_small.model()), state, rows))
  after = update(state, _small.hooks(), jax.random.key(0), _small.hour()).memory["objective"]
  np.testing.assert_allclose(after["weights"], [0.7 + 0.5 * slope, 0.3 - 0.5 * slope], rtol=1e-5)
  assert float(after["rate"]) == 0.5

  at = lambda epoch, rate=0.5: update(
    train.remember(
      state,
      objective={**state.memory["objective"], "rate": jnp.float32(rate)},
    ),
    _small.hooks(),
    jax.random.key(0),
    _small.hour(epoch, epochs=50),
  ).memory["objective"]
  assert [float(at(e)["rate"]) for e in (0, 19, 20, 21, 40)] == [0.5, 0.5, 0.25, 0.5, 0.25]
  ends = {round(float(at(0, rate)["weights"][1]), 4) for rate in (1e6, -1e6)}
  assert ends == {0.05, 0.95}


def test_needs_validation_rows():
  method, state = make()
  with pytest.raises(Unavailable, match="needs a validation split"):
    method.phases[0].begin(state, {"train": None, "validation": None}, None, _small.hour())
