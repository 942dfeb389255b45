"""AMCo: the extra layer, the dominant modality, the masked loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import fusion, train
from mmfuse.core import Batch, Outputs, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _amco

from .. import _small

# Shares of one softmax: a 8/10, b 2/10.
BRANCHES = {"a": jnp.log(jnp.asarray([[6.0, 2.0]])), "b": jnp.zeros((1, 2))}
KERNEL = jnp.asarray([[2.0, 0.0], [0.0, 3.0]])


def given(b=True):
  mask = {"a": jnp.ones(1, bool), "b": jnp.asarray([b])}
  return Batch({}, jnp.asarray([0]), mask, jnp.ones(1), jnp.arange(1))


def outputs():
  logits = sum(BRANCHES.values()) @ KERNEL
  return Outputs(logits, BRANCHES, {}, {"split_logits": BRANCHES, "refine": KERNEL})


def run(epoch, batch, dominant, rows=None, sigma=0.5):
  objective = _amco._objective(sigma, 0.3)
  assert objective.init(given(), outputs())["dominant"].dtype == jnp.int32
  losses, memory = objective.apply(
    outputs(),
    rows or given(),
    {"dominant": jnp.int32(dominant)},
    key=jax.random.key(0),
    clock=_small.clock(epoch, batch),
  )
  return losses, int(memory["dominant"])


def cross_entropy(logits):
  return -float(jax.nn.log_softmax(logits)[0, 0])


FULL = cross_entropy(outputs().logits)
MASKED = cross_entropy(BRANCHES["b"] @ KERNEL)  # l = 9 * 2 / 10 > eps: all classes of a


@pytest.mark.parametrize(
  "epoch, batch, dominant, rows, want",
  [
    (9, 2, 0, None, MASKED),
    (9, 2, -1, None, FULL),
    (9, 0, 0, None, FULL),  # l = 0, and an epoch starts without a dominant modality
    (0, 2, 0, None, FULL),  # l = 0 in the first epoch
    (9, 2, 0, given(b=False), FULL),  # the row has nothing else
    (9, 2, 1, None, cross_entropy(BRANCHES["a"] @ KERNEL)),
  ],
)
def test_fused_loss_by_hand(epoch, batch, dominant, rows, want):
  losses, _ = run(epoch, batch, dominant, rows)
  np.testing.assert_allclose(losses["fused"], want, rtol=1e-5)


def test_branches_are_never_masked():
  losses, _ = run(9, 2, 0)
  np.testing.assert_allclose(losses["branches"], np.log(8 / 6) + np.log(2), rtol=1e-5)


def test_dominance_is_judged_anew_in_every_batch():
  assert run(0, 1, -1)[1] == 0
  assert run(0, 1, 1, sigma=0.9)[1] == -1
  assert run(0, 0, 1, sigma=0.9)[1] == -1


def test_layer_starts_as_the_identity_and_belongs_to_no_modality():
  method = METHODS["amco"](_small.model(3))
  state, rows = _small.start(method, 3), _small.batch(3)
  np.testing.assert_array_equal(state.params["refine"]["kernel"], np.eye(_small.CLASSES))
  found = method.predict(state, rows.inputs, rows.mask)
  plain = train.supervised(_small.model(3))
  want = plain.predict(_small.start(plain, 3), rows.inputs, rows.mask)
  np.testing.assert_allclose(found.logits, want.logits, atol=1e-6)
  assert "refine" not in found.aux
  assert _amco.refined(_small.model(3)).restrict("ab").modalities == ("a", "b")


def test_refusals():
  with pytest.raises(ValueError, match=r"sigma must lie in \[0, 1\]"):
    METHODS["amco"](_small.model(), sigma=2)
  with pytest.raises(ValueError, match="eps must be positive"):
    METHODS["amco"](_small.model(), eps=0)
  gated = fusion.LateFusion(_small.model().encoders, 3, fusion.Gated())
  method = METHODS["amco"](gated)
  with pytest.raises(Unavailable, match="additive fused head"):
    jax.eval_shape(
      method.phases[0].step, _small.start(method), _small.batch(), jax.random.key(0), _small.clock()
    )
