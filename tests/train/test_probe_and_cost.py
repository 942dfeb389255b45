"""Linear probes, modality values and XLA's counts on problems whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, metrics, tasks, train
from mmfuse.core import Method, Outputs, Phase, State

from ._problems import batch, clock, late_fusion


def _identity():
  """Features are the inputs; the fused prediction is the first feature of both, summed."""

  def predict(state, inputs, mask):
    del state
    seen = {m: jnp.where(mask[m][:, None], inputs[m], 0.0) for m in inputs}
    total = sum(x[:, 0] for x in seen.values())
    return Outputs(jnp.stack([jnp.zeros_like(total), total], 1), {}, seen)

  step = lambda state, batch, key, clock: (state, {})
  return Method(
    lambda key, batch, num_rows: State({}, {}, {"train": {}}, {}), predict, (Phase("train", step),)
  )


def _splits(rows=60):
  """The sign of a's first column is the label; b is noise; b is absent from every third row."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(rows, 2)), 0.01 * rng.normal(size=(rows, 3))
  label = (a[:, 0] > 0).astype(np.int32)
  present = np.arange(rows) % 3 > 0
  split = np.repeat(["train", "validation", "test"], rows // 3)
  b[~present] = 0
  return data.from_arrays(
    {
      "a": a.astype(np.float32),
      "b": b.astype(np.float32),
      "mask_b": present,
      "label": label,
      "split": split,
    }
  )


def test_a_probe_finds_what_is_linear_and_not_what_is_not_there():
  splits, method = _splits(), _identity()
  state = method.init(jax.random.key(0), None, 0)
  options = {"task": "classification", "num_outputs": 2}
  got = train.linear_probe(method, state, splits.train, splits.test, **options)
  assert got["a"] >= 0.9 and got["b"] <= 0.8
  gone = splits.test.replace(mask={**splits.test.mask, "b": np.zeros(20, bool)})
  assert set(train.linear_probe(method, state, splits.train, gone, **options)) == {"a"}


def test_features_of_no_modality_are_not_probed():
  splits, plain = _splits(), _identity()

  def joined(state, inputs, mask):
    outputs = plain.predict(state, inputs, mask)
    return outputs._replace(features={"a": outputs.features["a"], "hidden": outputs.logits})

  method = plain._replace(predict=joined)
  state = method.init(jax.random.key(0), None, 0)
  got = train.linear_probe(
    method, state, splits.train, splits.test, task="classification", num_outputs=2
  )
  assert set(got) == {"a"}


def test_modality_values_are_those_of_the_subsets():
  splits, method = _splits(), _identity()
  state = method.init(jax.random.key(0), None, 0)
  metric = tasks.metric("classification", 2)
  scored = dict(
    train.evaluate_subsets(
      method, state, splits.test, metric=metric, subsets=[(), ("a",), ("b",), ("a", "b")]
    )
  )
  v = {s: heads["fused"]["accuracy"] for s, heads in scored.items()}
  got = train.modality_values(method, state, splits.test, metric=metric)
  assert got["a"] == pytest.approx((v["a",] - v[()] + v["a", "b"] - v["b",]) / 2)
  assert sum(got.values()) == pytest.approx(v["a", "b"] - v[()])
  assert metrics.imbalance(got) == pytest.approx(got["a"] - got["b"]) and got["a"] > got["b"]
  assert metrics.imbalance({"a": 0.2}) == 0
  with pytest.raises(ValueError, match="no modalities"):
    metrics.imbalance({})


def test_the_cost_of_a_step_counts_its_floating_point_operations():
  given = batch(2)
  method = train.supervised(late_fusion(2, "none", 0.0))
  state = train.initial(method, jax.random.key(0), given)
  step = jax.jit(method.phases[0].step, donate_argnums=0)
  cost = train.cost_of(step.lower(state, given, jax.random.key(1), clock()).compile())
  # Two MLPs in -> 5 -> 4, heads of 4 -> 3 and 8 -> 3: forward and two backward products each.
  products = 8 * (3 * 5 + 2 * 5 + 2 * 5 * 4 + 2 * 4 * 3 + 8 * 3)
  assert 2 * 2 * products < cost.flops < 12 * products
  assert cost.bytes_accessed > 0 and cost.peak_bytes >= cost.temp_bytes > 0


def test_features_that_are_no_array_have_no_probe():
  """Those of several networks, side by side in a tuple."""
  splits, plain = _splits(), _identity()

  def predict(state, inputs, mask):
    said = plain.predict(state, inputs, mask)
    return said._replace(features={"a": said.features["a"], "b": (said.features["b"],) * 2})

  method = plain._replace(predict=predict)
  state = State({}, {}, {"train": {}}, {})
  found = train.linear_probe(
    method, state, splits.train, splits.test, task=splits.task, num_outputs=splits.num_outputs
  )
  assert set(found) == {"a"}
