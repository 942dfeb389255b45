"""Scores of whole parts: retrieval against brute force, dense labels, what is out of distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, metrics, train
from mmfuse.core import Batch, Method, Outputs, State, Unavailable

RNG = np.random.default_rng(0)


def splits():
  """Two modalities that are the same vector of a class, turned by a quarter in b."""
  label = np.arange(36) % 3
  x = np.eye(3)[label] + 0.01 * RNG.normal(size=(36, 3))
  column = np.repeat(["train", "validation", "test", "query", "ood"], [12, 6, 6, 6, 6])
  missing = np.arange(36) % 6 != 5
  arrays = {"a": x, "b": x[:, ::-1], "mask_b": missing, "label": label, "split": column}
  return data.from_arrays(arrays, scale={"a": "raw", "b": "raw"})


def aligned(turn):
  """A method that says what it is given, b turned back or not."""

  def predict(state, inputs, mask):
    b = inputs["b"][:, ::-1] if turn else inputs["b"]
    return Outputs(inputs["a"] * state.params, features={"a": inputs["a"], "b": b})

  return Method(lambda *_: State(jnp.ones(()), {}, {}, {}), predict, ())


STATE = State(jnp.ones(()), {}, {}, {})


def test_retrieval_reads_its_parts_by_role():
  given = splits()
  score = lambda turn, selecting, s=given: train.collect(
    aligned(turn), STATE, s, metrics.map_at_k(3), selecting=selecting
  )
  found = score(True, False)
  names = [f"map_at_{k}{d}" for k in ("3", "all") for d in ("", "/a->b", "/b->a")]
  assert found == dict.fromkeys(names, 1.0)
  assert score(False, False)["map_at_3"] < 0.7
  role = lambda name, selecting: train.part_of(given, name, selecting=selecting).index[0]
  assert [role("query", True), role("database", True)] == [12, 0]
  assert [role("query", False), role("database", False), role("ood", False)] == [24, 0, 30]
  plain = given.with_parts(query=None)
  assert train.part_of(plain, "query", selecting=False).index[0] == 18  # the test rows
  assert score(True, True, given.sealed())["map_at_3"] == 1.0


def test_parts_that_are_sealed_or_not_there_are_said():
  with pytest.raises(Unavailable, match="the part 'ood' is sealed until the report"):
    train.part_of(splits(), "ood", selecting=True)
  with pytest.raises(Unavailable, match="it reads the part 'shifted', and the data have: train"):
    train.part_of(splits(), "shifted", selecting=False)


def test_entropy_tells_what_is_unlike_the_training_rows():
  sure, unsure = 9 * np.eye(3)[np.arange(6) % 3], np.zeros((5, 3))
  outputs = {"test": Outputs(sure), "ood": Outputs(unsure)}
  assert metrics.ood_auroc().compute(outputs, {}) == {"ood_auroc": 1.0}
  # Members that are sure of different classes are unsure together.
  members = np.stack([sure, np.roll(sure, 1, 1)], 1)
  agree = np.stack([sure, sure], 1)
  said = {
    "test": Outputs(sure, aux={"members": agree}),
    "ood": Outputs(sure, aux={"members": members}),
  }
  assert metrics.ood_auroc().compute(said, {}) == {"ood_auroc": 1.0}


def test_dense_labels_are_judged_place_by_place_without_void():
  logits = RNG.normal(size=(4, 3, 5, 2)).astype(np.float32)
  label = RNG.integers(-1, 2, (4, 3, 5)).astype(np.int32)
  weight = np.asarray([1, 1, 0, 1], np.float32)
  metric = metrics.dense(metrics.classification(2))
  batch = Batch({}, label, {}, weight, np.arange(4))
  outputs = Outputs(logits)
  found = metric.compute(jax.device_get(metric.update(metric.init(outputs), outputs, batch)))
  counts = (label != -1) & (weight[:, None, None] > 0)
  said, truth = logits.argmax(-1)[counts], label[counts]
  assert found["fused"]["accuracy"] == pytest.approx((said == truth).mean(), abs=1e-6)
  dice = [
    2 * ((said == c) & (truth == c)).sum() / ((said == c).sum() + (truth == c).sum())
    for c in (0, 1)
  ]
  assert found["fused"]["macro_f1"] == pytest.approx(np.mean(dice), abs=1e-6)
