"""CML against numbers computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.core import Batch, Clock, Outputs
from mmfuse.objectives import _cml

LN2, LN4 = np.log(2.0), np.log(4.0)
# Rows: confidences 3/4, 1/2 for SURE_FIRST; 1/2, 3/4 for SURE_SECOND.
LOG3 = [0.0, np.log(3.0)]
SURE_FIRST = jnp.asarray([LOG3, [0.0, 0.0]])
SURE_SECOND = jnp.asarray([[0.0, 0.0], LOG3])
ALL = jnp.ones(2)
CLOCK = Clock(*(jnp.int32(0),) * 5)


def test_confidence_is_the_largest_probability():
  np.testing.assert_allclose(_cml.confidence(SURE_FIRST), [0.75, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
  "chain, ranking, want",
  [
    # Rises of -1/4 and +1/4 cancel in the batch, not row by row.
    ((SURE_FIRST, SURE_SECOND), "batch", 0.0),
    ((SURE_FIRST, SURE_SECOND), "row", 0.125),
    ((jnp.zeros((2, 2)), SURE_FIRST), "batch", 0.25),
    ((SURE_FIRST, jnp.zeros((2, 2))), "batch", 0.0),
    # Two removals: +1/4, then nothing.
    ((jnp.zeros((2, 2)), SURE_FIRST, SURE_FIRST), "batch", 0.25),
  ],
)
def test_penalty_by_hand(chain, ranking, want):
  got = _cml.ranking_penalty(chain, [ALL] * len(chain), ranking=ranking)
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_rows_that_lose_everything_do_not_count():
  got = _cml.ranking_penalty((jnp.zeros((2, 2)), SURE_FIRST), [ALL, jnp.asarray([0.0, 1.0])])
  assert float(got) == 0.0


NAMES = ("a", "b", "c")
FEATURES = {m: jnp.asarray([[i + 1.0, 0.0], [0.0, i + 1.0]]) for i, m in enumerate(NAMES)}
BIAS = jnp.asarray([[0.5, -0.5]])


def heads(features, mask):
  """An additive head with a bias."""
  del mask
  return Outputs(sum(features.values()) + BIAS)


def batch(absent=()):
  here = {m: jnp.asarray([True, m not in absent]) for m in NAMES}
  return Batch({}, jnp.asarray([0, 1]), here, ALL, jnp.arange(2))


def outputs():
  return heads(FEATURES, None)._replace(features=FEATURES)


def test_chain_removes_from_the_end_of_the_order():
  chain, weights = _cml.removal_chain(outputs(), batch(), heads, jnp.asarray([1, 2, 0]))
  for z, total in zip(chain, (6.0, 5.0, 2.0)):  # all; without a; b alone
    np.testing.assert_allclose(z, total * jnp.eye(2) + BIAS, rtol=1e-6)
  assert all(w.tolist() == [1.0, 1.0] for w in weights)
  # Row 1 has no b: with b alone it has nothing.
  weights = _cml.removal_chain(outputs(), batch("b"), heads, jnp.asarray([1, 2, 0]))[1]
  assert [w.tolist() for w in weights] == [[1, 1], [1, 1], [1, 0]]


def test_objective_without_penalty_is_the_mean_of_cross_entropies():
  found = _cml.cml(0.0)(outputs(), batch(), heads=heads, clock=CLOCK)
  assert list(found) == ["fused", "ranking"] and float(found["ranking"]) == 0.0
  order = jax.random.permutation(jax.random.fold_in(jax.random.key(0), 0), 3)
  chain = _cml.removal_chain(outputs(), batch(), heads, order)[0]
  logs = [jax.nn.log_softmax(z) for z in chain]
  want = -np.mean([[l[0, 0], l[1, 1]] for l in logs])
  np.testing.assert_allclose(found["fused"], want, rtol=1e-6)


def test_order_changes_with_the_epoch_and_only_with_it():
  run = lambda epoch, step: float(
    _cml.cml()(
      outputs(),
      batch(),
      heads=heads,
      clock=CLOCK._replace(epoch=jnp.int32(epoch), step=jnp.int32(step)),
    )["fused"]
  )
  assert run(0, 0) == run(0, 9)
  assert len({round(run(e, 0), 5) for e in range(5)}) > 1


def test_one_modality_is_the_plain_cross_entropy():
  alone = {"a": FEATURES["a"]}
  given = batch()._replace(mask={"a": jnp.ones(2, bool)})
  found = _cml.cml()(Outputs(SURE_FIRST, {}, alone), given, heads=heads, clock=CLOCK)
  np.testing.assert_allclose(found["fused"], (LN4 + LN2) / 2, rtol=1e-6)
  assert float(found["ranking"]) == 0.0


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match="must not be negative, got -1"):
    _cml.cml(-1)
  with pytest.raises(ValueError, match="unknown ranking 'sum'"):
    _cml.cml(ranking="sum")
  with pytest.raises(ValueError, match="got a multilabel task"):
    given = batch()._replace(label=jnp.zeros((2, 2), jnp.int32))
    _cml.cml()(outputs(), given, heads=heads, clock=CLOCK)
  with pytest.raises(ValueError, match="no fused head"):
    _cml.cml()(Outputs(None, {}, FEATURES), batch(), heads=heads, clock=CLOCK)
