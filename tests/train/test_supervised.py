"""The supervised builder: absence, probes, scores, what runs inside the step, and its sentences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import balancing, masks, objectives, train
from mmfuse.core import Batch, Functions, Objective
from mmfuse.fusion import Gated

from ._problems import (
  batch,
  clock,
  close,
  compiled,
  gradient,
  late_fusion,
  one_step,
  plain,
  same,
  spy,
)

DENSE = late_fusion(2, "none", 0.0)


def head(params, name):
  return {k: v for k, v in params["heads"].items() if k == name}


@pytest.mark.parametrize(
  "tx",
  [train.sgd(0.1, momentum=0.9, weight_decay=0.1), train.adam(0.1, weight_decay=0.1)],
  ids=["sgd", "adam"],
)
def test_an_encoder_absent_from_a_whole_batch_is_not_moved(tx):
  method = train.supervised(DENSE, tx=tx)
  _, warm, _ = one_step(method, batch(2))
  _, after, _ = one_step(method, batch(2, absent=("b",)), state=warm)
  same(after.params["b"], warm.params["b"])
  same(head(after.params, "b"), head(warm.params, "b"))
  assert (
    float(
      jnp.abs(after.params["a"]["dense0"]["kernel"] - warm.params["a"]["dense0"]["kernel"]).max()
    )
    > 0
  )


def test_coasting_lets_momentum_move_it():
  method = train.supervised(DENSE, tx=train.sgd(0.1, momentum=0.9), coast=True)
  _, warm, _ = one_step(method, batch(2))
  _, after, _ = one_step(method, batch(2, absent=("b",)), state=warm)
  moved = jax.tree.map(jnp.subtract, after.params["b"], warm.params["b"])
  trace = optax.tree.get(warm.opt["train"]["tx"], "trace")["b"]
  close(moved, jax.tree.map(lambda t: -0.1 * 0.9 * t, trace), 1e-6)
  assert float(optax.tree.norm(moved)) > 1e-3


def test_nothing_depends_on_what_absent_rows_contain():
  method = train.supervised(late_fusion(2, "batch", 0.3), tx=train.sgd(0.1))
  given = batch(2)
  state, after, log = one_step(method, given)
  step = compiled(method.phases[0].step)
  assert jnp.isnan(given.inputs["a"]).any() and bool(log["finite"])
  other = given._replace(
    inputs={m: jnp.where(given.mask[m][:, None], x, 1e9) for m, x in given.inputs.items()}
  )
  found, found_log = step(state, other, jax.random.key(1), clock())
  same(found, after)
  same(found_log, log)
  # Padding is absent too.
  padded = given._replace(weight=given.weight.at[0].set(0.0))
  a, _ = step(state, padded, jax.random.key(1), clock())
  b, _ = step(
    state,
    padded._replace(inputs={m: x.at[0].set(jnp.nan) for m, x in padded.inputs.items()}),
    jax.random.key(1),
    clock(),
  )
  same(a, b)


def without_unimodal(base):
  def heads(variables, features, mask, *, train, rngs=None):
    outputs, stats = base.heads(variables, features, mask, train=train, rngs=rngs)
    return outputs._replace(unimodal_logits={}), stats

  return Functions(base.init, base.encode, heads, base.modalities)


def test_heads_that_no_objective_trains_are_probed_without_touching_the_rest():
  given = batch(2)
  probed = gradient(train.supervised(DENSE, objectives.fused, plain()), given)
  bare = gradient(train.supervised(without_unimodal(DENSE), objectives.fused, plain()), given)
  full = gradient(train.supervised(DENSE, tx=plain()), given)
  for name in ("a", "b"):
    close(probed[name], bare[name], 1e-6)
    close(head(probed, name), head(full, name), 1e-6)  # their own loss, whatever else is minimised
    assert float(optax.tree.norm(head(probed, name))) > 1e-3
    assert float(optax.tree.norm(head(bare, name))) == 0.0
  close(head(probed, "fused"), head(bare, "fused"), 1e-6)


def test_a_model_that_says_its_unimodal_heads_alone_is_probed_alike():
  """With dropout before the heads: the same is dropped. A model of functions has no such short way."""
  model, given = late_fusion(2, "none", 0.3), batch(2)
  plainly = Functions(model.init, model.encode, model.heads, model.modalities)
  found, want = (
    gradient(train.supervised(m, objectives.fused, plain()), given) for m in (model, plainly)
  )
  close(found, want, 1e-7)


def test_a_probe_of_heads_that_share_the_fused_kernel_leaves_it_alone():
  def heads(variables, features, mask, *, train, rngs=None):
    outputs, stats = DENSE.heads(variables, features, mask, train=train, rngs=rngs)
    return outputs._replace(unimodal_logits=outputs.aux["split_logits"]), stats

  given = batch(2)
  tied = gradient(
    train.supervised(
      Functions(DENSE.init, DENSE.encode, heads, DENSE.modalities), objectives.fused, plain()
    ),
    given,
  )
  bare = gradient(train.supervised(without_unimodal(DENSE), objectives.fused, plain()), given)
  close(tied, bare, 1e-6)


@pytest.mark.parametrize(
  "model", [DENSE, late_fusion(2, "none", 0.0, Gated(width=4))], ids=["split", "heads"]
)
def test_scores_come_from_the_additive_split_where_there_is_one(model):
  given = batch(2)
  before, after, _ = one_step(train.supervised(model, objectives.fused, spy()), given)
  variables = {"params": before.params, "batch_stats": before.stats}
  filled = masks.fill(given.inputs, given.mask)
  features, _ = model.encode(variables, filled, given.mask, train=False)
  outputs, _ = model.heads(variables, features, given.mask, train=False)
  logits = outputs.aux.get("split_logits", outputs.unimodal_logits)
  assert ("split_logits" in outputs.aux) == (model is DENSE)
  wanted = balancing.scores(logits, given.label, given.mask)
  close(after.opt["train"]["tx"], wanted, 1e-6)


def test_augment_runs_inside_the_step():
  given = batch(2, nan=False)

  def augment(batch, key):
    shift = jax.random.normal(key, ())
    return batch._replace(inputs={m: x + shift for m, x in batch.inputs.items()})

  shift = jax.random.normal(jax.random.split(jax.random.key(1), 3)[0], ())
  moved = given._replace(inputs={m: x + shift for m, x in given.inputs.items()})
  found = gradient(train.supervised(DENSE, tx=plain(), augment=augment), given)
  close(found, gradient(train.supervised(DENSE, tx=plain()), moved), 1e-6)


def test_perturb_acts_between_encoders_and_heads():
  def perturb(features, batch, *, key, clock):
    jax.random.normal(key, batch.weight.shape)
    return {**features, "a": features["a"] * clock.epoch.astype(jnp.float32)}

  found = gradient(train.supervised(DENSE, tx=plain(), perturb=perturb), batch(2))
  assert float(optax.tree.norm(found["a"])) == 0.0  # epoch 0: nothing of encoder a gets through
  assert float(jnp.abs(found["heads"]["a"]["kernel"]).max()) == 0.0
  assert float(optax.tree.norm(found["b"])) > 1e-3


def test_an_objective_with_memory_carries_it():
  def apply(outputs, batch, memory, **extra):
    return objectives.fused_and_unimodal(outputs, batch), memory + 1

  method = train.supervised(
    DENSE, Objective(lambda batch, outputs: jnp.zeros((), jnp.int32), apply), plain()
  )
  _, after, _ = one_step(method, batch(2))
  assert int(after.memory["objective"]) == 1


def test_labels_that_are_no_array_leave_the_supervised_extras_out():
  given = batch(2)._replace(label={"boxes": jnp.ones((8, 2))})

  def objective(outputs, batch, **extra):
    return {"fused": objectives.weighted_mean(jnp.square(outputs.logits).sum(-1), batch.weight)}

  method = train.supervised(DENSE, objective, plain())
  before, after, log = one_step(method, given)
  assert float(log["loss/fused"]) > 0 and bool(log["finite"])
  same(head(after.params, "a"), head(before.params, "a"))
  assert method.functions["diagnose"](before, given, jax.random.key(0), clock()) == {}


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_tasks_train(task):
  rng = np.random.default_rng(0)
  label = rng.normal(size=8) if task == "regression" else rng.integers(0, 2, (8, 2))
  label = label.astype(np.float32 if task == "regression" else np.int32)
  classes = 1 if task == "regression" else 2
  method = train.supervised(late_fusion(2, "none", 0.0, classes=classes), tx=train.adam(0.1))
  given = batch(2, label=label)
  state = train.initial(method, jax.random.key(0), given)
  step, losses = compiled(method.phases[0].step), []
  for i in range(40):
    state, log = step(state, given, jax.random.key(i), clock(i))
    losses.append(float(log["loss/fused"]))
  assert losses[-1] < 0.6 * losses[0]
  outputs = method.predict(state, given.inputs, given.mask)
  assert outputs.logits.shape == (8, classes) and bool(jnp.isfinite(outputs.logits).all())


def test_predict_can_be_the_methods_own():
  method = train.supervised(
    DENSE, predict=lambda outputs, mask: outputs._replace(logits=outputs.unimodal_logits["b"])
  )
  given = batch(2)
  outputs = method.predict(
    train.initial(method, jax.random.key(0), given), given.inputs, given.mask
  )
  np.testing.assert_array_equal(outputs.logits, outputs.unimodal_logits["b"])


@pytest.mark.parametrize(
  "options, sentence",
  [
    (
      {"plan": "fast"},
      "unknown plan 'fast'; expected one of: auto, sum, weights, stacked, general",
    ),
    ({"parts": 0}, "parts must be at least 1, got 0"),
    ({"parts": 2}, "parts=2 is for an aggregator"),
    ({"plan": "sum", "aggregator": balancing.uniform(3)}, "plan='sum' takes neither"),
    ({"plan": "weights", "aggregator": balancing.mgda(3)}, "needs a balancing.Weighting"),
  ],
)
def test_impossible_plans_are_refused_with_a_sentence(options, sentence):
  with pytest.raises(ValueError, match=sentence):
    train.supervised(DENSE, **options)


def test_a_shape_preserving_transform_belongs_into_tx():
  with pytest.raises(TypeError, match="belongs into tx="):
    train.supervised(DENSE, aggregator=optax.sgd(0.1))
  with pytest.raises(TypeError, match="an objective is a function"):
    train.supervised(DENSE, {"fused": 1.0})


def test_a_modality_missing_from_the_batch_is_named():
  method, given = train.supervised(DENSE), batch(2)
  state = train.initial(method, jax.random.key(0), given)
  less = Batch({"a": given.inputs["a"]}, *given[1:])
  with pytest.raises(ValueError, match="modality 'b' not in batch; available: a"):
    method.phases[0].step(state, less, jax.random.key(0), clock())
  with pytest.raises(ValueError, match="modality 'b' not in batch; available: a"):
    method.predict(state, less.inputs, less.mask)


def test_a_log_of_your_own_reads_what_the_perturbation_leaves_of_the_features_and_drops_no_row():
  """It moves nothing, and is told of all modalities that the data have."""

  def log(outputs, batch):
    return {"b": batch.mask["b"].sum(), "size": jnp.abs(outputs.features["b"]).sum()}

  def perturb(features, batch, key, clock):
    none = {**batch.mask, "b": jnp.zeros_like(batch.mask["b"])}
    return masks.fill(features, none), batch._replace(mask=none)

  plain, logged = (train.supervised(DENSE, perturb=perturb, log=l) for l in (None, log))
  _, before, _ = one_step(plain, batch(2))
  _, after, found = one_step(logged, batch(2))
  same(before, after)
  assert int(found["b"]) == int(batch(2).mask["b"].sum()) > 0 and float(found["size"]) == 0
