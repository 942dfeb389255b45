"""MBSD against numbers computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.core import Batch, Outputs
from mmfuse.objectives import _branches, _mbsd

# softmax = (1/4, 3/4) and (1/2, 1/2)
STRONG, WEAK = jnp.asarray([[0.0, np.log(3.0)]]), jnp.zeros((1, 2))
ONE = jnp.ones(1)
HERE = jnp.ones(1, bool)


def distil(logits, label, mask=None, **options):
  mask = mask or dict.fromkeys(logits, HERE)
  return float(_mbsd.mutual_distillation(logits, jnp.asarray(label), mask, ONE, **options))


@pytest.mark.parametrize(
  "variant, target", [("released", 0.75), ("logarithm", np.log(0.75))], ids=["released", "log"]
)
def test_two_modalities_by_hand(variant, target):
  # w = 3/4 - 1/2; RS = (ln 3)^2 / 2 on the logits; KL = .5 (ln .5 - target)
  want = 0.25 * np.log(3.0) ** 2 / 2 + 0.25 * 0.5 * (np.log(0.5) - target)
  got = [
    distil({"a": x, "b": y}, [1], variant=variant) for x, y in [(STRONG, WEAK), (WEAK, STRONG)]
  ]
  np.testing.assert_allclose(got, [want, want], rtol=1e-5)


def test_no_branch_right_gives_nothing():
  # label 0: the argmax of the first is 1; of the second, by the tie, 0.
  assert distil({"a": STRONG, "b": WEAK + jnp.asarray([[0.0, 0.1]])}, [0]) == 0.0
  assert distil({"a": STRONG, "b": WEAK}, [0]) != 0.0


def test_three_modalities_average_pairs_and_compare_probabilities():
  logits = {"a": STRONG, "b": WEAK, "c": WEAK}
  # Pairs (a,b), (a,c): w = 1/4, RS = ((1/4)^2 + (1/4)^2) / 2; (b,c): w = 0.
  one = 0.25 / 16 + 0.25 * 0.5 * (np.log(0.5) - 0.75)
  np.testing.assert_allclose(distil(logits, [1]), 2 * one / 3, rtol=1e-5)
  # A pair that no row has is left out of the mean.
  mask = {"a": HERE, "b": HERE, "c": ~HERE}
  np.testing.assert_allclose(distil(logits, [1], mask), one, rtol=1e-5)


def test_one_modality_and_saturated_logits_are_finite():
  assert distil({"a": STRONG}, [1]) == 0.0
  extreme = {"a": jnp.asarray([[0.0, 200.0]]), "b": jnp.asarray([[200.0, 0.0]])}
  loss = lambda z, variant: _mbsd.mutual_distillation(
    z, jnp.asarray([1]), dict.fromkeys(z, HERE), ONE, variant=variant
  )
  for variant in _mbsd.VARIANTS:
    value, grads = jax.value_and_grad(loss)(extreme, variant)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, grads)))


def test_objective_reads_the_split_and_present_rows():
  other = jnp.zeros((1, 2)) + jnp.asarray([[9.0, 0.0]])
  outputs = Outputs(WEAK, {"a": other, "b": other}, {}, {"split_logits": {"b": WEAK, "a": STRONG}})
  assert list(_branches.branch_logits(outputs)) == ["a", "b"]
  given = Batch({}, jnp.asarray([1]), {"a": HERE, "b": HERE}, ONE, jnp.arange(1))
  found = _mbsd.mbsd()(outputs, given, key=None)
  np.testing.assert_allclose(found["fused"], np.log(2.0), rtol=1e-6)
  np.testing.assert_allclose(found["branches"], np.log(4 / 3) + np.log(2.0), rtol=1e-6)
  absent = given._replace(mask={"a": HERE, "b": ~HERE})
  found = _mbsd.mbsd()(outputs, absent)
  np.testing.assert_allclose(found["branches"], np.log(4 / 3), rtol=1e-6)
  assert float(found["distillation"]) == 0.0


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match="unknown variant 'kl'"):
    _mbsd.mbsd(variant="kl")
  given = Batch({}, jnp.ones(1), {"a": HERE}, ONE, jnp.arange(1))
  with pytest.raises(ValueError, match="got a regression task"):
    _mbsd.mbsd()(Outputs(WEAK, {"a": WEAK}), given)
