"""mdrnn and mdrnn_pcd: phases, what the head reads, missing modalities, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, train
from mmfuse.core import Unavailable
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion
from mmfuse.methods import METHODS, generative
from mmfuse.methods.generative import _mdrnn_with_head, mrbm

from .. import _small

SIZES = {"num_hidden": 8}
BUILDERS = {
  "mdrnn": lambda model, rate=0.1, **k: METHODS["mdrnn"](model, rate, **SIZES, **k),
  "mdrnn_pcd": lambda model, rate=0.1, **k: METHODS["mdrnn_pcd"](
    model, rate, chains=6, **SIZES, **k
  ),
}
same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", BUILDERS)
def test_phases_in_turn_and_the_last_state_of_the_first_is_handed_on(name):
  """With NaN where absent; the rate of `fit` reaches both phases; examples are those of two epochs."""
  method = BUILDERS[name](_small.model(3))
  assert [(p.name, p.share) for p in method.phases] == [
    ("train", pytest.approx(0.7)),
    ("head", pytest.approx(0.3)),
  ]
  splits = _small.splits(3)
  holes = {
    m: np.where(splits.train.mask[m][:, None], x, np.nan) for m, x in splits.train.inputs.items()
  }
  splits = splits.with_parts(train=splits.train.replace(inputs=holes))
  result = train.fit(
    method, splits, epochs=3, batch_size=_small.BATCH, learning_rate=0.2, loop="scan"
  )
  log, state = result.logs[0], result.state()
  assert [(e["phase"], e["validation"] is None) for e in log.history] == [
    ("train", True),
    ("train", True),
    ("head", False),
  ]
  assert log.diverged_at is None and log.best is not None and log.examples == 3 * _small.ROWS
  assert _small.finite((state.params, state.stats, state.memory))
  rates = [
    v for p, v in jax.tree_util.tree_flatten_with_path(state.opt)[0] if "learning_rate" in str(p)
  ]
  np.testing.assert_allclose(rates, [0.2, 0.2])
  assert float(jnp.abs(state.opt["train"].velocity["a"]["kernel"]).max()) > 0  # moved at the end


def test_the_head_moves_alone_even_with_weight_decay():
  method = BUILDERS["mdrnn"](_small.model(), tx=train.sgd(0.1, weight_decay=0.1))
  unsupervised, head = method.phases
  first = _small.start(method)
  first = unsupervised.begin(first, _small.hooks(), jax.random.key(3), _small.hour())
  trained, _ = jax.jit(unsupervised.step)(first, _small.batch(), jax.random.key(1), _small.clock())
  same(trained.params["fused"], first.params["fused"])
  assert float(abs(trained.params["a"]["kernel"] - first.params["a"]["kernel"]).max()) > 0
  begun = head.begin(trained, _small.hooks(), jax.random.key(2), _small.hour())
  after, log = jax.jit(head.step)(begun, _small.batch(), jax.random.key(2), _small.clock())
  for part in ("a", "b", "hidden"):
    same(after.params[part], begun.params[part])
  assert float(abs(after.params["fused"]["kernel"] - begun.params["fused"]["kernel"]).max()) > 0
  assert np.isfinite(log["loss/fused"])


def test_one_head_reads_what_is_present():
  """Uni-modal logits are the fused ones with everything else absent, and by hand they are s(h) W + b."""
  method = BUILDERS["mdrnn"](_small.model(3))
  state = _small.start(method, 3)
  for phase in method.phases:
    state = phase.begin(state, _small.hooks(3), jax.random.key(0), _small.hour())
  batch = _small.batch(3)
  full = {m: jnp.ones_like(v) for m, v in batch.mask.items()}
  only = {m: v if m == "b" else jnp.zeros_like(v) for m, v in full.items()}
  found, alone = (method.predict(state, batch.inputs, mask) for mask in (full, only))
  np.testing.assert_allclose(alone.logits, found.unimodal_logits["b"], rtol=1e-5)
  rbm = {k: v for k, v in state.params.items() if k != "fused"}
  units = mrbm.to_units(batch.inputs, only, state.stats["range"])
  h, _ = mrbm.infer(rbm, units, only)
  moments, head = state.stats["fused"], state.params["fused"]
  want = (h - moments["mean"][None]) / moments["std"][None] @ head["kernel"] + head["bias"][None]
  np.testing.assert_allclose(alone.logits, want, rtol=1e-4, atol=1e-5)
  assert found.logits.shape == (_small.BATCH, _small.CLASSES)


def test_labels_are_learnt_and_read_from_one_modality():
  """Two columns a class, high where it is the row's: chance is 1/3."""
  rng = np.random.default_rng(0)
  label = np.arange(180) % 3
  arrays = {"label": label, "split": np.repeat([0, 1, 2], [120, 40, 20])}
  for m in "ab":
    arrays[m] = np.repeat(np.eye(3)[label], 2, 1) + 0.2 * rng.normal(size=(180, 6))
  splits = data.from_arrays(arrays)
  method = METHODS["mdrnn"](_small.model(), 0.3, num_hidden=32)
  result = train.fit(method, splits.sealed(), epochs=40, batch_size=20, diagnose=False)
  scores = result.validation[0]
  assert scores["fused"] > 0.9
  assert min(scores["a"], scores["b"]) > 0.6


@pytest.mark.slow
def test_a_head_on_a_method_of_several_phases():
  """The deep network's phases share what the head leaves; its statistics are kept beside the head's."""
  deep = generative.mdrnn_deep(5, (4,), steps=1, nstop=1)
  method = train.with_head(deep, _mdrnn_with_head.hidden, _small.CLASSES, train.sgd(0.1), 0.6)
  assert [p.name for p in method.phases] == ["layer1", "top", "joint", "finetune", "head"]
  np.testing.assert_allclose([p.share for p in method.phases], [0.15] * 4 + [0.4])
  state = _small.start(method)
  begun = method.phases[0].begin(state, _small.hooks(), jax.random.key(0), _small.hour())
  after, _ = jax.jit(method.phases[0].step)(
    begun, _small.batch(), jax.random.key(1), _small.clock()
  )
  same(after.params["fused"], state.params["fused"])
  assert (
    float(
      jnp.abs(after.params["a"]["layer1"]["kernel"] - begun.params["a"]["layer1"]["kernel"]).max()
    )
    > 0
  )
  assert set(after.stats) == {"range", "fused"}
  batch = _small.batch()
  found = method.predict(after, batch.inputs, batch.mask)
  assert found.logits.shape == (_small.BATCH, _small.CLASSES) and np.isfinite(found.logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_labels(task):
  rows = np.arange(40)
  label = (
    np.stack([rows % 2, rows % 3 == 0], 1).astype(np.int32) if task == "multilabel" else rows / 40
  )
  x = np.random.default_rng(0).normal(size=(40, 2, 3))  # any rank
  splits = data.from_arrays({"a": x, "b": x[:, 0], "label": label})
  model = LateFusion({m: MLP(3, ()) for m in "ab"}, splits.num_outputs)
  result = train.fit(
    BUILDERS["mdrnn_pcd"](model), splits.sealed(), epochs=2, batch_size=8, diagnose=False
  )
  assert result.logs[0].best is not None


def test_refusals():
  with pytest.raises(Unavailable, match="two modalities"):
    BUILDERS["mdrnn"](_small.model(1))
  with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), got 1"):
    BUILDERS["mdrnn"](_small.model(), share=1)
  method = BUILDERS["mdrnn"](_small.model())
  batch = _small.batch()
  tokens = batch._replace(inputs={**batch.inputs, "a": jnp.zeros((_small.BATCH, 3), jnp.int32)})
  with pytest.raises(Unavailable, match="'a' holds int32"):
    train.initial(method, jax.random.key(0), tokens)
  never = _small.splits().train
  never = never.replace(mask={**never.mask, "b": np.zeros(_small.ROWS, bool)})
  with pytest.raises(Unavailable, match="no training row has"):
    method.phases[0].begin(_small.start(method), {"train": never}, jax.random.key(0), _small.hour())
