"""The parts of a prediction by modality: Shapley values by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import masks
from mmfuse.methods.balancing._shapley_logits import shapley_logits


def subsets(num, seed=0):
  """{subset: [2, 3]} of arbitrary games; names a, b, c..."""
  rng = np.random.default_rng(seed)
  return {s: rng.normal(size=(2, 3)).astype(np.float32) for s in masks.combinations("abcde"[:num])}


def test_parts_of_two_modalities():
  f = {("a",): 1.0, ("b",): 3.0, ("a", "b"): 10.0}
  phi = shapley_logits({s: jnp.full((1, 1), v) for s, v in f.items()})
  assert (float(phi["a"][0, 0]), float(phi["b"][0, 0])) == (4.0, 6.0)
  # Without the empty set's term only the marginal gains are halved.
  phi = shapley_logits({s: jnp.full((1, 1), v) for s, v in f.items()}, "released")
  assert (float(phi["a"][0, 0]), float(phi["b"][0, 0])) == (3.5, 4.5)


def test_parts_of_three_modalities_are_the_authors():
  f = subsets(3)
  got = shapley_logits({frozenset(s): z for s, z in f.items()})["b"]
  want = (f["a", "b", "c"] - f["a", "c"] + f[("b",)]) / 3
  want = want + (f["a", "b"] - f[("a",)] + f["b", "c"] - f[("c",)]) / 6
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_parts_sum_to_the_prediction(num):
  f = subsets(num)
  phi = shapley_logits(f)
  np.testing.assert_allclose(sum(phi.values()), f[tuple("abcde"[:num])], atol=1e-5)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({("a",): 0, ("a", "b"): 0}, "missing: b"),
    ({tuple("abcdefghi"): 0}, "at most 8"),
  ],
)
def test_parts_need_every_subset_of_few_modalities(given, message):
  with pytest.raises(ValueError, match=message):
    shapley_logits({s: jnp.zeros((1, 1)) for s in given})
