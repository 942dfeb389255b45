"""Mining: distances of predicted labels by hand, when it happens, which rows are weak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.missing import _mining


def test_candidates_lack_one_modality():
  assert _mining.candidates("ab") == [("a",), ("b",)]
  assert _mining.candidates("abc") == [("a", "b"), ("a", "c"), ("b", "c")]
  assert [len(s) for s in _mining.candidates("abcd")] == [3] * 4


def test_distances_by_hand():
  counts, complete = np.asarray([[4, 0], [1, 3], [0, 0]]), np.asarray([2, 2])
  p = np.exp(1) / (1 + np.exp(1))  # of the softmax of shares (1, 0)
  q = np.exp(0.25) / (np.exp(0.25) + np.exp(0.75))
  kl = lambda a: a * np.log(2 * a) + (1 - a) * np.log(2 * (1 - a))
  np.testing.assert_allclose(_mining.histogram_distance(counts, complete), [kl(p), kl(q), 0])
  # Shares with one more of each: 5 and 1 of 6, 2 and 4 of 6.
  plain = _mining.histogram_distance(counts, complete, "plain")
  np.testing.assert_allclose(plain, [kl(5 / 6), kl(1 / 3), 0])
  with pytest.raises(ValueError, match="unknown histogram 'x'; expected one of: softmax, plain"):
    _mining.histogram_distance(counts, complete, "x")


def test_gaps_of_a_score():
  gaps = _mining.score_gap(np.asarray([[0.5, 0.25], [0.5, 1.0]]), np.asarray([0.75, 0.5]))
  np.testing.assert_allclose(gaps, [[0.0625, 0.25], [0, 0.25]])


def test_the_weak_set():
  found = _mining.with_singles(np.asarray([True, False, True]))
  np.testing.assert_array_equal(found, [[1, 0, 1], [1, 0, 0], [0, 0, 1]])
  np.testing.assert_array_equal(_mining.with_singles(np.asarray([False, True])), [[0, 1]])


def test_weak_rows_have_exactly_such_a_subset():
  every = np.asarray([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], bool)
  mask = dict(zip("abc", jnp.asarray(every).T))
  weak = jnp.asarray([[1, 0, 1], [1, 0, 0], [0, 0, 0]], bool)  # the last says nothing
  found = np.asarray(_mining.is_weak({m: mask[m] for m in "cab"}, weak))
  np.testing.assert_array_equal(every[found], [[1, 0, 0], [1, 0, 1]])
  assert not _mining.is_weak(mask, jnp.zeros((3, 3), bool)).any()


@pytest.mark.parametrize(
  "epochs, warm_up, mined",
  [(100, 5, [2, 3, 4]), (300, 15, list(range(2, 15))), (30, 2, [1]), (8, 1, [1]), (50, 3, [2])],
)
def test_when(epochs, warm_up, mined):
  assert _mining.warm_up_epochs(epochs, 0.05) == warm_up
  traced = jax.jit(_mining.warm_up_epochs, static_argnums=1)(jnp.int32(epochs), 0.05)
  assert int(traced) == warm_up
  assert [e for e in range(1, epochs + 1) if _mining.is_mining(e, warm_up)] == mined
