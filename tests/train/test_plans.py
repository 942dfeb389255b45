"""All gradient plans give the same gradients, and the cheap one is cheap."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing, masks, objectives, train, tree
from mmfuse.core import Functions

from ._problems import (
  batch,
  clock,
  close,
  compiled,
  gradient,
  late_fusion,
  one_step,
  plain,
  summing,
)


def build(model, plan, **options):
  aggregator = {"sum": None, "weights": balancing.uniform(1 + len(model.modalities))}.get(
    plan, summing()
  )
  return train.supervised(model, tx=plain(), aggregator=aggregator, plan=plan, **options)


@pytest.mark.parametrize("num", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_all_plans_agree_with_batch_norm_dropout_and_masks(num):
  model, given = late_fusion(num, dropout=0.3 * (num == 3), inside=0.3 * (num == 2)), batch(num)
  runs = {
    plan: one_step(build(model, plan), given) for plan in ("sum", "weights", "stacked", "general")
  }
  before = runs["sum"][0]
  assert (
    sum(
      float(jnp.abs(x).sum())
      for x in jax.tree.leaves(jax.tree.map(jnp.subtract, runs["sum"][1].params, before.params))
    )
    > 1.0
  )
  for _, after, log in runs.values():
    close(after.params, runs["sum"][1].params, 1e-5)
    close(log, runs["sum"][2], 1e-5)
    # One update of the statistics: exactly what one pass through the encoders writes.
    filled = masks.fill(given.inputs, given.mask)
    rngs = {"dropout": jax.random.split(jax.random.split(jax.random.key(1), 3)[1], 3)[0]}
    _, once = model.encode(
      {"params": before.params, "batch_stats": before.stats},
      filled,
      given.mask,
      train=True,
      rngs=rngs,
    )
    close(after.stats, once, 1e-6)
    assert float(jnp.abs(after.stats["a"]["norm0"]["mean"]).max()) > 0


def parting(record):
  """The plain sum, keeping the parts it was given."""

  def update(updates, state, params=None, *, losses, parts, **extra):
    return tree.combine(jnp.ones(losses.shape), updates), {"parts": parts, "losses": losses}

  def init(params):
    return {
      "parts": jax.tree.map(lambda p: jnp.zeros((2, record, *p.shape)), params),
      "losses": jnp.zeros(record),
    }

  return balancing.Aggregator(init, update)


def test_parts_stacked_equals_general_and_each_part_is_the_gradient_of_its_rows():
  model, given = late_fusion(2, "none", 0.0), batch(2, rows=8)
  runs = [
    one_step(train.supervised(model, tx=plain(), aggregator=parting(3), parts=2, plan=plan), given)
    for plan in ("stacked", "general")
  ]
  close(runs[0][1], runs[1][1], 1e-5)
  found = runs[0][1].opt["train"]["aggregator"]
  half = given._replace(weight=given.weight * (jnp.arange(8) % 2 == 1))
  wanted = gradient(train.supervised(model, tx=plain()), half)
  close(jax.tree.map(lambda g: g[1].sum(0), found["parts"]), wanted, 1e-5)
  np.testing.assert_allclose(runs[0][2]["loss/fused"], found["losses"][0])


def linen_like(base, heads=None, encode=None):
  return Functions(base.init, encode or base.encode, heads or base.heads, base.modalities)


def shared_trunk(base):
  """Encoder b is read through the first layer of encoder a, too."""

  def encode(variables, inputs, mask, *, train, rngs=None):
    features, stats = base.encode(variables, inputs, mask, train=train, rngs=rngs)
    shared = variables["params"]["a"]["dense1"]["kernel"]
    return {**features, "b": features["b"] * shared.sum(keepdims=True)}, stats

  return linen_like(base, encode=encode)


def head_reads_encoder(base):
  def heads(variables, features, mask, *, train, rngs=None):
    outputs, stats = base.heads(variables, features, mask, train=train, rngs=rngs)
    extra = variables["params"]["a"]["dense0"]["kernel"].sum(keepdims=True)
    return outputs._replace(logits=outputs.logits * extra), stats

  return linen_like(base, heads=heads)


def head_sees_two(base):
  def heads(variables, features, mask, *, train, rngs=None):
    outputs, stats = base.heads(variables, features, mask, train=train, rngs=rngs)
    u = outputs.unimodal_logits
    return outputs._replace(unimodal_logits={"a": u["a"] + u["b"], "b": u["b"]}), stats

  return linen_like(base, heads=heads)


@pytest.mark.slow
@pytest.mark.parametrize("change", [shared_trunk, head_reads_encoder, head_sees_two])
def test_a_model_that_is_not_separable_takes_the_general_plan_with_one_warning(change):
  model, given = change(late_fusion(2, "none", 0.0)), batch(2)
  wanted = gradient(train.supervised(model, tx=plain()), given)
  with pytest.warns(UserWarning, match="not separable") as seen:
    found = gradient(train.supervised(model, tx=plain(), aggregator=summing()), given)
  assert len(seen) == 1
  close(found, wanted, 1e-5)
  with pytest.raises(ValueError, match="touch one modality each"):
    one_step(train.supervised(model, aggregator=summing(), plan="stacked"), given)


def with_forward(outputs, batch, *, forward, **extra):
  """The fused loss, once more with modality b switched off."""
  losses = objectives.fused_and_unimodal(outputs, batch)
  without = forward(batch.inputs, masks.only(batch.mask, ("a",)))
  return {**losses, "fused": losses["fused"] + objectives.fused(without, batch)["fused"]}


def test_an_objective_that_calls_forward_excludes_the_stacked_plan():
  model, given = late_fusion(2, "none", 0.0), batch(2)
  with pytest.raises(ValueError, match="calls `forward`"):
    train.supervised(model, with_forward, aggregator=summing(), plan="stacked")
  wanted = gradient(train.supervised(model, with_forward, plain()), given)
  with pytest.warns(UserWarning, match="calls `forward`"):
    found = gradient(train.supervised(model, with_forward, plain(), aggregator=summing()), given)
  close(found, wanted, 1e-5)


def test_labels_name_the_objectives_that_reach_a_leaf_and_absent_ones_are_told():
  record = {}
  method = train.supervised(late_fusion(2), tx=plain(), aggregator=summing(record))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    _, after, _ = one_step(method, batch(2, absent=("b",)))
  rows = {
    "/".join(p.key for p in path): leaf.objectives
    for path, leaf in jax.tree_util.tree_flatten_with_path(record["owners"])[0]
  }
  assert rows.pop("heads/fused/kernel") == rows.pop("heads/fused/bias") == (0,)
  wanted = {"a": (0, 1), "b": (0, 2), "heads/a": (1,), "heads/b": (2,)}
  for path, found in rows.items():
    assert found == wanted[re.match(r"heads/.|.", path)[0]], path
  assert {
    "key",
    "clock",
    "scores",
    "logits",
    "unimodal_logits",
    "split_logits",
    "features",
    "mask",
    "weight",
    "label",
    "value",
  } == set(record["names"])
  state = after.opt["train"]["aggregator"]
  np.testing.assert_array_equal(state["present"], [True, True, False])
  assert float(state["losses"][2]) == 0.0 and float(state["losses"][1]) > 0


def test_a_weighting_gets_the_same_vocabulary_before_the_backward_pass():
  seen = {}

  def weigh(losses, state, params=None, **extra):
    seen.update(extra)
    return jnp.ones_like(losses), state

  method = train.supervised(
    late_fusion(2, "none", 0.0),
    tx=plain(),
    aggregator=balancing.Weighting(lambda params: (), weigh),
  )
  given = batch(2)
  jax.eval_shape(
    method.phases[0].step,
    jax.eval_shape(functools.partial(train.initial, method), jax.random.key(0), given),
    given,
    jax.random.key(0),
    clock(),
  )
  assert {
    "value",
    "scores",
    "logits",
    "unimodal_logits",
    "split_logits",
    "features",
    "mask",
    "weight",
    "label",
    "key",
    "clock",
    "present",
    "owners",
  } == set(seen)


def flops(num, plan):
  from mmfuse.encoders import MLP
  from mmfuse.fusion import LateFusion

  names = "abcd"[:num]
  model = LateFusion({m: MLP(64, (64,), "none") for m in names}, 2)
  rng = np.random.default_rng(0)
  given = batch(num, rows=64, nan=False)._replace(
    inputs={m: jnp.asarray(rng.normal(size=(64, 64)), jnp.float32) for m in names}
  )
  method = build(model, plan)
  state = jax.eval_shape(functools.partial(train.initial, method), jax.random.key(0), given)
  step = compiled(method.phases[0].step).lower(state, given, jax.random.key(1), clock()).compile()
  return step.cost_analysis()["flops"]


def test_stacked_costs_two_passes_through_the_encoders_whatever_their_number():
  two, four = (flops(num, "stacked") / flops(num, "sum") for num in (2, 4))
  assert 1.3 < two <= 1.70
  assert 1.3 < four <= 1.70
  assert abs(two - four) < 0.05
