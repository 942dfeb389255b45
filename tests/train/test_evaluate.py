"""Evaluation: padded, nothing dropped, all subsets in one compilation."""

import jax
import numpy as np
import pytest

from mmfuse import masks, metrics, tasks, train
from mmfuse.train import _evaluate

from ._problems import late_fusion, tiny

METHOD = train.supervised(late_fusion(2, "none", 0.0))
ACCURACY = tasks.metric("classification", 3)


@pytest.fixture(scope="module")
def split():
  return tiny(rows=23).train


@pytest.fixture(scope="module")
def state(split):
  return train.initial(METHOD, jax.random.key(0), train.to_batch(split))


def oracle(state, split, keep=("a", "b")):
  """{head: accuracy} by numpy, all rows in one batch."""
  mask = {m: v & (m in keep) for m, v in split.mask.items()}
  outputs = METHOD.predict(state, split.inputs, mask)
  heads = {"fused": (outputs.logits, np.ones(len(split.label), bool))}
  heads |= {m: (z, mask[m]) for m, z in outputs.unimodal_logits.items()}
  return {
    h: np.mean((np.argmax(np.asarray(z), -1) == split.label)[rows]) if rows.any() else np.nan
    for h, (z, rows) in heads.items()
  }


@pytest.mark.parametrize("size", [5, 512])
def test_padding_drops_nothing_and_counts_nothing_twice(state, split, size):
  found = train.evaluate(METHOD, state, split, metric=ACCURACY, batch_size=size)
  wanted = oracle(state, split)
  assert 0 < (~split.mask["b"]).sum() < 23
  for head, value in wanted.items():
    assert found[head]["accuracy"] == pytest.approx(value, abs=1e-6)


def test_the_python_loop_is_the_same(state, split):
  batches = _evaluate.padded_batches(split, 5)
  assert batches.weight.shape == (5, 5) and batches.weight.sum() == 23
  found = _evaluate.loop_batches(
    METHOD.predict, ACCURACY, _evaluate.seen(state), batches, _evaluate.keep_all(split.mask)
  )
  assert float(found["fused"]["accuracy"]) == pytest.approx(oracle(state, split)["fused"], abs=1e-6)


def test_all_subsets_take_one_compilation(state, split):
  before = _evaluate.map_views._cache_size()
  found = train.evaluate_subsets(METHOD, state, split, metric=ACCURACY, batch_size=6)
  assert _evaluate.map_views._cache_size() == before + 1
  assert [s for s, _ in found] == masks.combinations("ab")
  for subset, scores in found:
    for head, value in oracle(state, split, subset).items():
      np.testing.assert_allclose(
        scores[head]["accuracy"], value, atol=1e-6, err_msg=f"{subset} {head}"
      )
  alone = train.evaluate(METHOD, state, split, metric=ACCURACY, batch_size=6, present=("a",))
  np.testing.assert_equal(alone, dict(found)[("a",)])
  assert np.isnan(
    alone["b"]["accuracy"]
  )  # a head whose modality is switched off is judged on nothing


def test_predict_split_keeps_row_order(state, split):
  found = train.predict_split(METHOD, state, split, batch_size=5)
  wanted = METHOD.predict(state, split.inputs, split.mask)
  assert found.logits.shape == (23, 3)
  np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-5)
  np.testing.assert_allclose(found.features["b"], wanted.features["b"], atol=1e-5)


def test_bad_questions_are_refused(state, split):
  with pytest.raises(ValueError, match="modality 'depth' not in data; available: a, b"):
    train.evaluate(METHOD, state, split, metric=ACCURACY, present=("a", "depth"))
  with pytest.raises(ValueError, match="the split to evaluate is empty"):
    train.evaluate(METHOD, state, split.rows(np.arange(0)), metric=ACCURACY)
  with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
    train.evaluate(METHOD, state, split, metric=ACCURACY, batch_size=0)
  assert isinstance(ACCURACY, metrics.Metric)
