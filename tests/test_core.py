"""The types every method is made of."""

import jax
import jax.numpy as jnp
import pytest

from mmfuse.core import Batch, Clock, Functions, Method, Objective, Outputs, Phase, State


def test_defaults_are_what_most_methods_need():
  phase = Phase("train", lambda *a: a)
  assert phase.share == 1.0
  assert {
    f: getattr(phase, f) for f in ("begin", "epoch_end", "rows", "predict", "select")
  } == dict.fromkeys(("begin", "epoch_end", "rows", "predict", "select"))
  assert Outputs(None) == (None, {}, {}, {})
  assert Functions(None, None, None).restrict is None
  assert Objective(None, None)._fields == ("init", "apply")


def test_a_methods_functions_are_shared_by_none():
  method = Method(None, None, ())
  assert dict(method.functions) == {}
  with pytest.raises(TypeError):
    method.functions["decode"] = print


def test_state_and_batch_are_pytrees_whose_structure_survives_a_step():
  state = State({"a": jnp.ones(2)}, {}, {"train": ()}, {})
  batch = Batch({"a": jnp.ones((2, 3))}, None, {"a": jnp.ones(2, bool)}, jnp.ones(2), jnp.arange(2))
  clock = Clock(*(jnp.int32(i) for i in range(5)))

  @jax.jit
  def step(state, batch, clock):
    return jax.tree.map(lambda x: x + clock.step, state), batch

  after, same = step(state, batch, clock._replace(step=jnp.int32(2)))
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert isinstance(same, Batch) and same.label is None
  assert after.params["a"].tolist() == [3.0, 3.0]
  assert clock._fields == ("step", "epoch", "batch", "batches", "epochs")
