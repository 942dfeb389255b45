"""Labels by one rule, and tree algebra that skips what is known to be zero."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse import tree
from mmfuse.tree import Owner

PARAMS = {
  "audio": {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}},
  "heads": {
    "audio": {"kernel": jnp.ones(2)},
    "fused": {"kernel": jnp.ones(4)},
    "extra": jnp.ones(1),
  },
  "trunk": jnp.ones(5),
  "video": {"audio": jnp.ones(1)},
}
MODALITIES = ("video", "audio")


def test_labels_by_the_rule():
  found = tree.owners_of(PARAMS, MODALITIES)
  assert found == {
    "audio": {"dense": {"kernel": Owner("audio", "encoder"), "bias": Owner("audio", "encoder")}},
    "heads": {
      "audio": {"kernel": Owner("audio", "head")},
      "fused": {"kernel": Owner(None, "head")},
      "extra": Owner(None, "shared"),
    },
    "trunk": Owner(None, "shared"),
    "video": {"audio": Owner("video", "encoder")},  # the top level decides
  }
  assert len(jax.tree.leaves(found)) == len(jax.tree.leaves(PARAMS))


def test_top_level_owners_are_a_users_default():
  found = tree.top_level_owners({"audio": {"w": 1.0}, "head": [2.0, 3.0]})
  assert found == {"audio": {"w": "audio"}, "head": ["head", "head"]}
  assert tree.top_level_owners(jnp.ones(2)) == "shared"


def test_dot_is_over_all_leaves_in_float32():
  a = {"x": jnp.asarray([1.0, 2.0], jnp.bfloat16), "y": jnp.asarray(3.0)}
  found = tree.dot(a, a)
  assert float(found) == 14.0 and found.dtype == jnp.float32
  assert float(tree.dot({}, {})) == 0.0


def test_small_leaves_are_one_vector_and_a_large_one_stays_alone():
  rng = np.random.default_rng(0)
  sizes = [(3, 4), (), (tree.SMALL,), (tree.SMALL + 1,), (0,), (5,)]
  leaves = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in sizes]
  small, large = tree.few_vectors(leaves)
  flat = lambda chosen: np.concatenate([np.ravel(leaves[i]) for i in chosen])
  np.testing.assert_array_equal(small, flat([0, 1, 2, 4, 5]))
  np.testing.assert_array_equal(large, leaves[3])
  np.testing.assert_allclose(tree.norm(leaves), np.linalg.norm(flat(range(6))), rtol=1e-6)


def test_a_norm_is_in_float32_and_0_of_nothing():
  x = {"a": jnp.full(1000, 0.1, jnp.bfloat16), "b": jnp.asarray([3.0])}
  want = np.sqrt(np.square(np.asarray(x["a"], np.float64)).sum() + 9.0)
  assert tree.norm(x).dtype == jnp.float32
  np.testing.assert_allclose(tree.norm(x), want, rtol=1e-6)
  assert float(tree.norm({})) == 0.0


STACKED = {
  "x": jnp.asarray([[1.0, 0.0], [2.0, 1.0], [0.0, 0.0]]),
  "y": jnp.asarray([[1.0], [0.0], [3.0]]),
}
ROWS = {"x": Owner("x", "encoder", (0, 1)), "y": Owner("y", "encoder", (0, 2))}


def test_gram_by_hand():
  wanted = [[2, 2, 3], [2, 5, 0], [3, 0, 9]]
  np.testing.assert_allclose(tree.gram(STACKED), wanted)
  np.testing.assert_allclose(tree.gram(STACKED, ROWS), wanted)


def test_rows_said_to_be_zero_are_never_read():
  poisoned = {"x": STACKED["x"].at[2].set(jnp.nan), "y": STACKED["y"].at[1].set(jnp.nan)}
  np.testing.assert_allclose(tree.gram(poisoned, ROWS), tree.gram(STACKED))
  weights = jnp.asarray([1.0, 10.0, 100.0])
  found = tree.combine(weights, poisoned, ROWS)
  np.testing.assert_allclose(found["x"], [21, 10])
  np.testing.assert_allclose(found["y"], [301])
  silent = {"x": Owner(None, "shared", ()), "y": Owner(None, "shared", ())}
  assert float(jnp.abs(tree.gram(poisoned, silent)).sum()) == 0.0
  assert float(tree.combine(weights, poisoned, silent)["x"].sum()) == 0.0


SHAPES = st.lists(st.sampled_from([(), (1,), (3,), (2, 2)]), min_size=1, max_size=3)


@given(st.integers(0, 10**6), st.integers(1, 4), SHAPES, st.booleans())
@settings(max_examples=25, deadline=None)
def test_gram_and_combine_equal_the_dense_ones(seed, num, shapes, labelled):
  rng = np.random.default_rng(seed)
  stacked, owners, flat = {}, {}, []
  for i, shape in enumerate(shapes):
    rows = tuple(k for k in range(num) if rng.random() < 0.6)
    leaf = rng.normal(size=(num, *shape)).astype(np.float32)
    leaf *= np.isin(np.arange(num), rows).reshape((-1,) + (1,) * len(shape))
    stacked[f"l{i}"], owners[f"l{i}"] = jnp.asarray(leaf), Owner(None, "shared", rows)
    flat.append(leaf.reshape(num, -1))
  dense, weights = np.concatenate(flat, 1), rng.normal(size=num).astype(np.float32)
  chosen = owners if labelled else None
  np.testing.assert_allclose(tree.gram(stacked, chosen), dense @ dense.T, atol=1e-4)
  found = tree.combine(jnp.asarray(weights), stacked, chosen)
  joined = np.concatenate([np.ravel(found[k]) for k in sorted(found)])
  np.testing.assert_allclose(joined, weights @ dense, atol=1e-4)


def test_combine_keeps_the_dtype_of_the_gradients():
  found = tree.combine(jnp.asarray([1.0, 2.0]), {"x": jnp.ones((2, 3), jnp.bfloat16)})
  assert found["x"].dtype == jnp.bfloat16 and found["x"].tolist() == [3.0] * 3
