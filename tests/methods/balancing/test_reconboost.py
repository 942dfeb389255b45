"""ReconBoost: whose turn it is, and who moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import train
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _reconboost

from .. import _small


@pytest.mark.parametrize("num", [1, 2, 3])
def test_turns(num):
  found = [_reconboost.turn(_small.clock(e), num) for e in range(2 * num + 1)]
  assert [int(i) for i, _ in found] == [e // 2 % num for e in range(2 * num + 1)]
  assert [bool(alone) for _, alone in found] == [e % 2 == 0 for e in range(2 * num)] + [True]


def moved(before, after):
  change = jax.tree.map(lambda a, b: float(abs(a - b).max()), before, after)
  return {k: max(jax.tree.leaves(v), default=0.0) > 0 for k, v in change.items()}


def test_only_the_active_modality_moves_whatever_the_momentum():
  method = METHODS["reconboost"](_small.model(), 0.1)
  step = jax.jit(method.phases[0].step)
  state, rows = _small.start(method), _small.batch()
  seen = []
  for epoch in range(4):
    for b in range(2):
      new, _ = step(state, rows, jax.random.key(epoch), _small.clock(epoch, b))
      seen.append(moved(state.params, new.params))
      own = moved(
        {
          "a": state.params["heads"]["fused"]["kernel"][:3],
          "b": state.params["heads"]["fused"]["kernel"][3:],
        },
        {
          "a": new.params["heads"]["fused"]["kernel"][:3],
          "b": new.params["heads"]["fused"]["kernel"][3:],
        },
      )
      state = new
      assert own == {m: seen[-1][m] for m in "ab"}
  for epoch, (a, b, rate) in enumerate([(1, 0, 0), (1, 1, 1), (0, 1, 0), (1, 1, 1)]):
    for entry in seen[2 * epoch : 2 * epoch + 2]:
      assert (entry["a"], entry["b"], entry["boost_rate"]) == (a, b, rate)


def test_prediction_is_the_boosted_sum_of_what_is_there():
  method = METHODS["reconboost"](_small.model(3), boost_rate=0.5)
  state, rows = _small.start(method, 3), _small.batch(3)
  found = method.predict(state, rows.inputs, rows.mask)
  split = found.aux["split_logits"]
  total = sum(np.where(rows.mask[m][:, None], split[m], 0.0) for m in "abc")
  np.testing.assert_allclose(found.logits, 0.5 * total, rtol=1e-5, atol=1e-6)
  nobody = {m: jnp.zeros_like(v) for m, v in rows.mask.items()}
  np.testing.assert_array_equal(method.predict(state, rows.inputs, nobody).logits, 0.0)
  assert float(state.params["boost_rate"]) == 0.5


def test_attached_agreement_changes_the_second_round_alone():
  def after(variant, epoch):
    method = METHODS["reconboost"](_small.model(), 0.1, variant=variant)
    return jax.jit(method.phases[0].step)(
      _small.start(method), _small.batch(), jax.random.key(0), _small.clock(epoch)
    )[0].params["a"]

  same = lambda epoch: all(  # to rounding: they are two programs
    np.allclose(x, y, rtol=1e-5, atol=1e-7)
    for x, y in zip(*(jax.tree.leaves(after(v, epoch)) for v in _reconboost.VARIANTS))
  )
  assert same(0) and not same(4)


def test_state_has_a_rate_to_search():
  state = _small.start(METHODS["reconboost"](_small.model()))
  assert train.has_learning_rate(state.opt)


def test_unknown_variant_is_refused():
  with pytest.raises(ValueError, match="unknown variant 'x'"):
    METHODS["reconboost"](_small.model(), variant="x")
