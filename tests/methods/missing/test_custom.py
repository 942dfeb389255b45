"""A model per subset: independent training, and each row by the model of what it has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import masks, objectives, train
from mmfuse.core import Functions, Unavailable
from mmfuse.methods import METHODS

from .. import _small

METHOD = METHODS["custom"](_small.model(), 0.1)


@pytest.fixture(scope="module")
def stepped():
  return jax.jit(METHOD.phases[0].step)(
    _small.start(METHOD), _small.batch(), jax.random.key(1), _small.clock()
  )


def test_every_model_is_trained_as_if_it_were_alone(stepped):
  state, log = stepped
  assert sorted(state.params) == ["01", "10", "11"] and bool(log["finite"])
  alone = train.supervised(_small.model().restrict(("b",)), objectives.fused, train.sgd(0.1))
  batch = _small.batch()
  rows = batch._replace(weight=jnp.where(batch.mask["b"], batch.weight, 0.0))
  start = train.initial(alone, jax.random.key(0), _small.batch(), _small.ROWS)
  want, own = jax.jit(alone.phases[0].step)(
    start, rows, jax.random.fold_in(jax.random.key(1), 1), _small.clock()
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params["01"], want.params
  )
  assert float(log["loss/01"]) == pytest.approx(float(own["loss/fused"]), rel=1e-6)


def test_a_row_is_predicted_by_the_model_of_what_it_has(stepped):
  state, batch = stepped[0], _small.batch()
  said = METHOD.predict(state, batch.inputs, batch.mask)
  assert {tuple(bool(batch.mask[m][i]) for m in "ab") for i in range(_small.BATCH)} == {
    (True, True),
    (True, False),
    (False, True),
  }
  for subset in masks.combinations("ab"):
    name = "".join("01"[m in subset] for m in "ab")
    part = train.supervised(_small.model().restrict(subset), objectives.fused)
    own = state._replace(params=state.params[name], stats=state.stats[name], opt={}, memory={})
    logits = part.predict(own, batch.inputs, batch.mask).logits
    rows = np.all([np.asarray(batch.mask[m]) == (m in subset) for m in "ab"], axis=0)
    np.testing.assert_allclose(said.logits[rows], logits[rows], atol=1e-6)
    if len(subset) == 1:
      np.testing.assert_allclose(said.unimodal_logits[subset[0]], logits, atol=1e-6)


def test_equal_builds_share_what_is_compiled_and_the_rate_is_one():
  assert METHODS["custom"](_small.model(), 0.2).predict == METHOD.predict
  assert train.has_learning_rate(_small.start(METHOD).opt, 0.1)


def test_where_it_is_undefined():
  with pytest.raises(Unavailable, match="at most 4 modalities, these are 5"):
    METHODS["custom"](_small.model(5))
  with pytest.raises(Unavailable, match="restricted to fewer"):
    METHODS["custom"](Functions(*[None] * 3, ("a", "b")))
