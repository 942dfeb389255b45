"""The templates of CONTRIBUTING.md: each block of code is taken from the page and run."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmfuse
from mmfuse import balancing, data, encoders, fusion, masks, metrics, objectives, tasks, train
from mmfuse.core import Batch, Outputs

PAGE = pathlib.Path(mmfuse.__file__).parent.parent / "CONTRIBUTING.md"
KINDS = ("rule", "method", "head", "task")  # in the order of the page


def blocks():
  """{kind: its block of code}."""
  section = PAGE.read_text().split("\n## Templates\n")[1]
  found = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
  return dict(zip(KINDS, found, strict=True))


def template(kind):
  """What the block of a kind defines."""
  namespace = {"__name__": f"template_{kind}"}
  exec(compile(blocks()[kind], f"CONTRIBUTING.md, {kind}", "exec"), namespace)
  return namespace


@pytest.fixture(scope="module")
def splits():
  rng = np.random.default_rng(0)
  label = np.arange(64) % 4
  return data.from_arrays(
    {
      "a": rng.normal(size=(64, 3)) + label[:, None],
      "b": rng.normal(size=(64, 5)),
      "label": label,
    }
  )


def small_model(joined=None):
  parts = {m: encoders.MLP(6, (5,)) for m in "ab"}
  return fusion.LateFusion(parts, 4, fusion.Concat() if joined is None else joined)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_is_short(kind):
  assert 10 <= sum(bool(line.strip()) for line in blocks()[kind].splitlines()) <= 25


def test_the_rule_keeps_the_contract():
  rule = template("rule")["inverse_loss"]
  balancing.check_contract(rule)
  weights, state = rule(2, eps=0.0).weigh(jnp.array([2.0, 0.5]), rule(2).init(None))
  np.testing.assert_allclose(weights, [0.5, 2.0])
  np.testing.assert_array_equal(state.weights, weights)
  weights, _ = rule(2, eps=0.0).weigh(
    jnp.array([2.0, 0.5]), state, present=jnp.array([True, False])
  )
  np.testing.assert_allclose(weights, [0.5, 0.0])


def test_the_method_is_a_method(splits):
  build = template("method")["confidence_penalty"]
  train.check_method(build(small_model(), train.sgd(0.1)), splits)
  penalty = template("method")["ConfidencePenalty"]
  present = {"a": jnp.ones(2, bool)}
  batch = Batch({}, jnp.array([0, 1]), present, jnp.ones(2), jnp.arange(2))
  outputs = Outputs(jnp.zeros((2, 4)))  # entropy log 4, cross-entropy log 4
  np.testing.assert_allclose(penalty(0.5)(outputs, batch)["fused"], 0.5 * np.log(4), rtol=1e-6)


def test_the_head_joins_features(splits):
  model = small_model(template("head")["Product"](7))
  inputs = splits.train.inputs
  rows = len(splits.train)
  mask = {"a": np.arange(rows) % 2 == 0, "b": np.arange(rows) % 3 != 1}
  variables = model.init(jax.random.key(0), inputs, mask)
  assert variables["params"]["heads"]["fused"]["project_a"]["kernel"].shape == (6, 7)

  @jax.jit
  def logits(inputs):
    features, stats = model.encode(variables, inputs, mask, train=False)
    carried = {**variables, "batch_stats": stats}
    return model.heads(carried, features, mask, train=False)[0].logits

  said = logits(inputs)
  assert said.shape == (rows, 4) and np.isfinite(said).all()
  garbage = masks.fill(inputs, mask, 1e6)
  np.testing.assert_array_equal(said, logits(garbage))
  nobody = ~mask["a"] & ~mask["b"]  # the empty product
  assert nobody.sum() > 1 and np.ptp(np.asarray(said)[nobody], axis=0).max() == 0


def test_the_task_judges_and_selects(splits, monkeypatch):
  names = template("task")
  task, ordinal = names["task"], names["ordinal"]
  logits = jnp.eye(4)[jnp.array([0, 3, 1, 2])]
  label = jnp.array([0, 1, 2, 0])
  found = ordinal.compute(ordinal.update(ordinal.init(), logits, label, jnp.array([1.0, 1, 2, 0])))
  np.testing.assert_allclose(found["within_one"], 3 / 4)  # 0, 2 and, twice, 1 off
  np.testing.assert_allclose(found["classes_off"], 4 / 4)
  nothing = ordinal.compute(ordinal.update(ordinal.init(), logits, label, jnp.zeros(4)))
  broken = ordinal.update(ordinal.init(), logits.at[1, 0].set(jnp.nan), label, jnp.ones(4))
  assert np.isnan(nothing["within_one"]) and np.isnan(ordinal.compute(broken)["classes_off"])

  monkeypatch.setitem(tasks.TASKS, task.name, task)
  np.testing.assert_array_equal(tasks.constant([0, 1, 3], task.name, 4), [0, 1, 0, 0])
  own = dataclasses.replace(splits, task=task.name)
  method = train.supervised(small_model(), objectives.fused, train.sgd(0.1))
  result = train.fit(method, own, epochs=2, batch_size=16)
  for epoch in result.logs[0].history:
    scores = epoch["validation"]["fused"]
    assert 0 <= scores["within_one"] <= 1 and 0 <= scores["classes_off"] <= 3
  assert {s.name for s in task.metric(4, None).scores} == {"within_one", "classes_off"}
  assert isinstance(tasks.metric_of(own), metrics.Metric)
