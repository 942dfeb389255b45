"""Which leaves are weighed together, and which keep their plain gradient."""

import jax.numpy as jnp
import pytest

from mmfuse import tree
from mmfuse.balancing import _groups

TAGS = [
  tree.Owner("a", "encoder", (0, 1)),
  tree.Owner("b", "encoder", (0, 2)),
  tree.Owner("b", "head", (2,)),
  tree.Owner(None, "head"),
  tree.Owner(None, "shared", (0, 1, 2)),
  tree.Owner(None, "shared", (0,)),
]


def test_global_is_one_group_without_heads():
  assert _groups.split(TAGS, 3) == [((0, 1, 2), (0, 1, 4))]


def test_encoder_scope_is_one_group_per_encoder():
  assert _groups.split(TAGS, 3, "encoder") == [
    ((0, 1), (0,)),
    ((0, 2), (1,)),
    ((0, 1, 2), (4,)),
  ]


def test_an_encoder_without_rows_meets_the_fused_objective():
  bare = [tree.Owner(t.modality, t.part) for t in TAGS[:2]]
  assert [g.rows for g in _groups.split(bare, 3, "encoder")] == [(0, 1), (0, 2)]
  assert [g.rows for g in _groups.split(bare, 3)] == [(0, 1, 2)]
  assert _groups.split(bare, 1, "encoder") == []


def test_an_objective_without_common_leaves_is_left_out():
  """A zero row would make the min-norm point zero."""
  assert _groups.split(TAGS[:1], 3)[0].rows == (0, 1)


def test_the_fused_head_is_a_head_of_no_modality():
  params = {"a": jnp.ones(1), "heads": {"a": jnp.ones(1), "fused": jnp.ones(1)}, "x": jnp.ones(1)}
  owners = tree.owners_of(params, ("a",))
  assert owners["heads"] == {"a": tree.Owner("a", "head"), "fused": tree.Owner(None, "head")}
  assert owners["x"] == tree.Owner(None, "shared")


@pytest.mark.parametrize("bad", [jnp.ones(()), jnp.ones((2, 3))])
def test_gradients_of_another_number_are_refused(bad):
  with pytest.raises(ValueError, match=r"gradients \[3, \*param\]"):
    _groups.check_stacked({"x": bad}, 3)
