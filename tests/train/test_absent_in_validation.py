"""A modality that no validation row has is no score; NaN is kept for what diverged."""

import jax
import numpy as np
import pytest

from mmfuse import data, methods, tasks, train
from mmfuse.train import validation_scores

from ._problems import late_fusion

MODEL = late_fusion(2, "batch", 0.1, classes=2)


@pytest.fixture(scope="module")
def splits():
  """Modality b is in three of four training rows, in no validation row and in half the test rows."""
  rng = np.random.default_rng(0)
  label = np.arange(36) % 2
  part = np.repeat(["train", "validation", "test"], [20, 8, 8])
  here = np.where(part == "train", np.arange(36) % 4 != 1, (part == "test") & (np.arange(36) > 31))
  b = rng.normal(size=(36, 2)).astype(np.float32)
  b[~here] = np.nan
  a = label[:, None] + rng.normal(size=(36, 3))
  return data.from_arrays(
    {"a": a.astype(np.float32), "b": b, "mask_b": here, "label": label, "split": part}
  )


@pytest.mark.parametrize("name", ["joint", "uniform", "mimo"])
@pytest.mark.parametrize("loop", ["scan", "python"])
def test_jax_debug_nans_stays_quiet(splits, name, loop):
  with jax.debug_nans(True):
    result = train.fit(
      methods.METHODS[name](MODEL, 0.05), splits, epochs=1, batch_size=8, loop=loop
    )
  (scores,) = result.validation
  assert scores["b"] is None and np.isfinite([scores["a"], scores["fused"]]).all()
  found = train.evaluate(
    methods.METHODS[name](MODEL), result.state(), splits.validation, metric=tasks.metric_of(splits)
  )
  assert np.isnan(found["b"]["accuracy"]) and found["fused"]["accuracy"] == scores["fused"]


def test_a_head_that_is_not_finite_is_nan_and_not_absent(splits):
  method = methods.METHODS["joint"](MODEL, 0.05)
  init = method.init

  def broken(key, batch, num_rows):
    state = init(key, batch, num_rows)
    heads = state.params["heads"]
    a = jax.tree.map(lambda x: x * np.inf, heads["a"])
    return state._replace(params={**state.params, "heads": {**heads, "a": a}})

  still = method.phases[0]._replace(step=lambda state, *rest: (state, {}))
  result = train.fit(
    method._replace(init=broken, phases=(still,)), splits, epochs=1, batch_size=20, diagnose=False
  )
  scores = validation_scores(result.logs[0], "accuracy", ("a", "b"))
  assert np.isnan(scores["a"]) and scores["b"] is None and np.isfinite(scores["fused"])


def test_an_unlabelled_validation_row_counts_in_no_score(splits):
  method = methods.METHODS["joint"](MODEL)
  state = train.initial(method, jax.random.key(0), train.to_batch(splits.train))
  known = np.arange(8) % 4 != 2
  metric = tasks.metric_of(splits)
  some = splits.validation.replace(
    labelled=known, label=np.where(known, splits.validation.label, 0)
  )
  few = splits.validation.rows(known)
  found, wanted = (train.evaluate(method, state, s, metric=metric) for s in (some, few))
  for score, value in wanted["fused"].items():
    assert found["fused"][score] == pytest.approx(value, rel=1e-6)
  assert train.judged(some).tolist() == known.tolist()
  assert train.absent(some) == {"b"} and train.absent(splits.train) == frozenset()
