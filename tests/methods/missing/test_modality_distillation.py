"""One modality at test: what its phases minimise and move, and that the privileged one is not read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, encoders, objectives, train
from mmfuse.core import LAST, Functions, Unavailable
from mmfuse.fusion import LateFusion
from mmfuse.methods import METHODS
from mmfuse.methods.missing import _two_branches as two
from mmfuse.protocol import Compare, UsageError
from mmfuse.protocol import _rows as rows
from mmfuse.protocol._built import Built, defined
from mmfuse.train._lens import FROZEN

from .. import _small

BUILD = METHODS["modality_distillation"]
KEY = jax.random.key(1)
TEACHER, STUDENT = "teacher", "student"


@functools.cache
def method(**options):
  return BUILD(_small.model(), 0.1, **{"available": "b", **options})


@functools.cache
def stepper(place, **options):
  return jax.jit(method(**options).phases[place].step)


@functools.cache
def start(**options):
  return _small.start(method(**options))


def step(batch=None, state=None, place=-1, **options):
  state = start(**options) if state is None else state
  batch = _small.batch() if batch is None else batch
  return stepper(place, **options)(state, batch, KEY, _small.clock())


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def close(a, b, atol=1e-5):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=atol), a, b)


def moved(a, b):
  return any((np.asarray(x) != np.asarray(y)).any() for x, y in zip(*map(jax.tree.leaves, (a, b))))


def pieces(state, batch):
  """(g, translated, teacher's features and logits, row weights) of a state."""
  model = _small.model()
  branches = two.Branches(model.restrict(("b",)), model.restrict(("a",)))
  variables = {"params": state.params[STUDENT], "batch_stats": state.stats[STUDENT]}
  g, _ = branches.restore(variables, batch.inputs, batch.mask, train=True)
  said, _ = branches.translate(variables, g.features, batch.inputs, batch.mask, train=True)
  kept = {"params": state.params[TEACHER], "stats": state.stats[TEACHER]}
  told = train.outputs_of(model.restrict(("a",)), kept, batch.inputs, batch.mask)
  weight = {
    "b": jnp.where(batch.mask["b"], batch.weight, 0.0),
    "both": jnp.where(batch.mask["a"] & batch.mask["b"], batch.weight, 0.0),
  }
  return g, said, told.features["a"], told.unimodal_logits["a"], weight


def test_phases():
  one, two_stages = method(), method(two_stage=True)
  assert [(p.name, p.share, p.select) for p in one.phases] == [
    ("teacher/train", 0.5, LAST),
    ("student/train", 0.5, "accuracy@b"),
  ]
  assert [(p.name, p.share, p.select) for p in two_stages.phases] == [
    ("teacher/train", 0.5, LAST),
    ("student/restored", 0.25, LAST),
    ("student/train", 0.25, "accuracy@b"),
  ]
  assert one.predict == BUILD(_small.model(), 0.3, available="b").predict
  assert method(task="multilabel").phases[-1].select == "macro_f1@b"
  same(start().params, start(two_stage=True).params)
  assert train.has_learning_rate(start().opt, 0.1)
  assert train.has_learning_rate(start(two_stage=True).opt, 0.1)


def expected(state, batch, match="mmd", logits="mse", temperature=1.0):
  """The terms of the objective, from the pieces."""
  g, said, t, q, weight = pieces(state, batch)
  square = lambda x, y: jnp.mean(jnp.square(x - y), axis=-1)
  apart = {
    "mmd": lambda: objectives.mmd_loss(g.rows, t, weight["both"]),
    "jmmd": lambda: objectives.jmmd_loss([g.rows, g.logits], [t, q], weight["both"]),
    "pkt": lambda: objectives.pkt_mmd_loss(g.rows, t, weight["both"]),
  }[match]
  log_p, log_q = (jax.nn.log_softmax(z / temperature) for z in (g.logits, q))
  differ = {
    "mse": square(g.logits, q),
    "kl": temperature**2 * (jnp.exp(log_q) * (log_q - log_p)).sum(-1),
  }[logits]
  rec = square(said.joint_own, said.own) + square(said.joint_restored, g.features)
  entropy = -jnp.take_along_axis(jax.nn.log_softmax(said.logits), batch.label[:, None], 1)[:, 0]
  mean = lambda values, w: (values * w).sum() / w.sum()
  return {
    "fused": mean(entropy, weight["b"]),
    "match": apart(),
    "logits": mean(differ, weight["both"]),
    "reconstruction": mean(rec, weight["b"]),
  }


@pytest.mark.parametrize(
  "options",
  [{}, {"match": "jmmd"}, {"match": "pkt", "logits": "kl", "temperature": 2.0}],
  ids=lambda o: "-".join(map(str, o.values())) or "default",
)
def test_the_objective(options):
  weights = {"mmd_weight": 0.5, "logit_weight": 2.0, "rec_weight": 3.0}
  _, log = step(**options, **weights)
  want = expected(start(), _small.batch(), **options)
  factor = {"fused": 1.0, "match": 0.5, "logits": 2.0, "reconstruction": 3.0}
  for name, value in want.items():
    assert float(value) > 1e-3
    assert float(log[f"loss/{name}"]) == pytest.approx(factor[name] * float(value), rel=1e-4), name
  total = sum(factor[n] * float(v) for n, v in want.items())
  assert float(log["loss"]) == pytest.approx(total, rel=1e-4)


def test_without_weights_it_is_two_encoders_and_their_entropy():
  none = {"mmd_weight": 0.0, "logit_weight": 0.0, "rec_weight": 0.0}
  found, _ = step(tx=train.sgd(0.1, momentum=0.0), **none)
  batch = _small.batch()

  def entropy(params):
    state = start()._replace(params={**start().params, STUDENT: params})
    return expected(state, batch)["fused"]

  before = start().params[STUDENT]
  grads = jax.jit(jax.grad(entropy))(before)
  close(found.params[STUDENT], jax.tree.map(lambda p, g: p - 0.1 * g, before, grads))
  # The restored branch learns through the translation alone: its head gets nothing.
  head = grads["b"][two.RESTORED][two.NETWORK]["heads"]
  assert not any(np.any(g) for g in jax.tree.leaves(head))


def test_targets_of_the_reconstruction_may_be_constants():
  options = {"mmd_weight": 0.0, "logit_weight": 0.0}
  free, stopped = (step(stop_targets=s, **options) for s in (False, True))
  assert float(free[1]["loss"]) == pytest.approx(float(stopped[1]["loss"]), rel=1e-6)
  assert moved(free[0].params[STUDENT], stopped[0].params[STUDENT])


def test_the_teacher_learns_the_privileged_modality_and_then_stays():
  taught, log = step(place=0)
  same(taught.params[STUDENT], start().params[STUDENT])
  assert moved(taught.params[TEACHER], start().params[TEACHER])
  alone = METHODS["unimodal"](_small.model(), 0.1, modality="a")
  own = train.initial(alone, KEY, _small.batch(), _small.ROWS)
  own = own._replace(params=start().params[TEACHER])
  _, said = jax.jit(alone.phases[0].step)(own, _small.batch(), KEY, _small.clock())
  assert float(log["loss/a"]) == pytest.approx(float(said["loss/a"]), rel=1e-6)
  after, _ = step(state=taught)
  for field in ("params", "stats", "memory"):
    same(getattr(after, field)[TEACHER], getattr(taught, field)[TEACHER])
  assert FROZEN not in after.memory[STUDENT]


def branch(state, mine=True):
  """Parameters of the restored branch, or all others."""
  own = dict(state.params[STUDENT]["b"])
  restored = own.pop(two.RESTORED)
  return restored if mine else own


def test_two_stages_move_one_part_each():
  """With momentum and decay, which would move what has no gradient."""
  options = {"two_stage": True, "tx": train.sgd(0.1, weight_decay=0.1)}
  first, log = step(place=1, **options)
  assert {"loss/match", "loss/logits"} <= set(log) and "loss/fused" not in log
  assert moved(branch(first), branch(start())) and not moved(
    branch(first, False), branch(start(), False)
  )
  second, log = step(place=2, state=first, **options)
  assert {"loss/fused", "loss/reconstruction"} <= set(log) and "loss/match" not in log
  assert moved(branch(second, False), branch(first, False))
  same(branch(second), branch(first))
  want = expected(first, _small.batch())
  assert float(log["loss/fused"]) == pytest.approx(float(want["fused"]), rel=1e-4)


def test_a_restored_branch_that_is_frozen_keeps_its_statistics():
  model = _small.model(norm="batch")
  built = BUILD(model, 0.1, available="b", two_stage=True)
  state = train.initial(built, jax.random.key(0), _small.batch(), _small.ROWS)
  run = lambda place, s: jax.jit(built.phases[place].step)(s, _small.batch(), KEY, _small.clock())[
    0
  ]
  stats = lambda s: s.stats[STUDENT]["b"]
  first = run(1, state)
  second = run(2, first)
  assert moved(stats(first)[two.RESTORED], stats(state)[two.RESTORED])
  same(stats(first)[two.OWN], stats(state)[two.OWN])
  same(stats(second)[two.RESTORED], stats(first)[two.RESTORED])
  assert moved(stats(second)[two.OWN], stats(first)[two.OWN])


def test_rows_that_lack_a_modality():
  """Without the privileged one a batch still trains by its entropy; without the other nothing moves."""
  state, _ = step()  # there is momentum now
  after, log = step(_small.batch(absent="a"), state)
  assert float(log["loss/match"]) == 0 == float(log["loss/logits"]) and float(log["loss/fused"]) > 0
  assert moved(after.params[STUDENT], state.params[STUDENT])
  after, log = step(_small.batch(absent="b"), state)
  assert float(log["loss"]) == 0 and bool(log["finite"])
  same(after.params, state.params)
  taught, _ = step(place=0)
  same(step(_small.batch(absent="a"), taught, place=0)[0].params, taught.params)


def without(mask, m):
  return {**mask, m: jnp.zeros_like(mask[m])}


def test_the_prediction_reads_the_available_modality_alone():
  batch, predict = _small.batch(), jax.jit(method().predict)
  said = predict(start(), batch.inputs, batch.mask)
  assert list(said.unimodal_logits) == ["b"] == list(said.features)
  same(said.logits, said.unimodal_logits["b"])
  absent = np.asarray(~batch.mask["b"])
  assert not np.any(said.logits[absent]) and np.all(np.any(said.logits[~absent], axis=1))
  nan = {**batch.inputs, "a": jnp.full_like(batch.inputs["a"], jnp.nan)}
  for mask in (batch.mask, without(batch.mask, "a")):  # NaN that claims to be there, too
    same(predict(start(), nan, mask), said)
  assert not np.any(predict(start(), batch.inputs, without(batch.mask, "b")).logits)


@pytest.mark.parametrize("two_stage", [False, True])
def test_selection_does_not_read_the_privileged_modality(two_stage):
  """Validation rows in which it is NaN, or absent, give the same run to the last bit."""
  splits, results = _small.splits(), []
  whole = splits.validation
  nan = {**whole.inputs, "a": np.full_like(whole.inputs["a"], np.nan)}
  lost = {**whole.mask, "a": np.zeros(len(whole), bool)}
  for validation in (whole, whole.replace(inputs=nan), whole.replace(inputs=nan, mask=lost)):
    results.append(
      train.fit(
        method(two_stage=two_stage),
        splits.with_parts(validation=validation),
        epochs=6,
        batch_size=_small.BATCH,
        loop="scan",
        diagnose=False,
      )
    )
  first, *others = results
  scored = lambda result: [(e["phase"], e["validation"]) for e in result.logs[0].history]
  for other in others:
    same(other.states.params, first.states.params)
    assert scored(other) == scored(first)
  validated = [scores for phase, scores in scored(first) if phase == "student/train"]
  assert validated and all(set(scores) == {"fused", "b"} for scores in validated)
  assert first.logs[0].best == max(scores["b"]["accuracy"] for scores in validated)


def test_other_modalities_are_not_read():
  built = BUILD(_small.model(3), 0.1, available="b", privileged="c")
  batch = _small.batch(3)
  state = train.initial(built, jax.random.key(0), batch, _small.ROWS)
  other = batch._replace(inputs={**batch.inputs, "a": 2 * batch.inputs["a"]})
  for phase in built.phases:
    run = jax.jit(phase.step)
    same(*(run(state, b, KEY, _small.clock()) for b in (batch, other)))
    state, log = run(state, batch, KEY, _small.clock())
    assert bool(log["finite"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_labels(task):
  rng = np.random.default_rng(0)
  arrays = {m: rng.normal(size=(30, 3)).astype(np.float32) for m in "ab"}
  label = rng.integers(0, 2, (30, 4)) if task == "multilabel" else arrays["a"][:, 0]
  arrays |= {"label": label, "split": np.repeat([0, 1, 2], [16, 8, 6])}
  splits = data.from_arrays(arrays)
  model = LateFusion({m: encoders.MLP(3, (), "none") for m in "ab"}, splits.num_outputs)
  options = {"logits": "kl"} if task == "multilabel" else {}
  built = BUILD(model, 0.1, task=task, available="b", **options)
  result = train.fit(built, splits, epochs=2, batch_size=8, loop="scan", diagnose=False)
  last = result.logs[0].history[-1]
  assert last["loss/logits"] > 0 and np.isfinite(last["loss"])
  assert result.logs[0].best is not None
  if task == "regression":
    with pytest.raises(Unavailable, match="labels are real numbers"):
      BUILD(model, 0.1, task=task, available="b", logits="kl")


@pytest.mark.slow
def test_the_restored_branch_comes_to_resemble_the_teacher():
  model = LateFusion({m: encoders.MLP(8, ()) for m in "ab"}, _small.CLASSES)
  built = BUILD(model, 0.05, available="b")
  options = {"batch_size": _small.BATCH, "loop": "scan", "diagnose": False}
  result = train.fit(built, _small.splits(), epochs=60, **options)
  student = [e for e in result.logs[0].history if e["phase"] == "student/train"]
  assert len(student) == 30
  for name in ("match", "logits", "fused"):
    found = [float(e[f"loss/{name}"]) for e in student]
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:2]), name
  assert result.logs[0].best > 0.6  # chance is 1 / 3


# What it must be told.


def test_without_being_told_its_row_reads_n_a():
  cfg = Compare(methods=("joint", "modality_distillation"), epochs=3, batch_size=8)
  for number, sentence in (
    (1, "there is only one"),
    (2, "must be told available=, the one modality that is there at test; there are: a, b"),
    (
      3,
      "available=, the one modality that is there at test, and privileged=, the one that teaches",
    ),
  ):
    made, unavailable = rows.make_rows(cfg, "abc"[:number], "classification")
    kept = defined(Built(cfg, _small.model(number)), made, unavailable)
    assert [r.name for r in kept] == ["joint"]
    assert sentence in unavailable["modality_distillation"]


def test_told_on_the_command_line():
  def kept(*settings):
    cfg = Compare(methods=("modality_distillation",), set=settings, epochs=3, batch_size=8)
    made, unavailable = rows.make_rows(cfg, "abc", "classification")
    return defined(Built(cfg, _small.model(3)), made, unavailable), unavailable

  one, other = (f"modality_distillation.{k}" for k in ("available=a", "privileged=c"))
  assert [r.name for r in kept(one, other)[0]] == ["modality_distillation"]
  assert "privileged=" in kept(one)[1]["modality_distillation"]
  with pytest.raises(UsageError, match="modality 'depth' not in the model; available: a, b, c"):
    kept("modality_distillation.available=depth")


def test_a_model_that_cannot_be_restricted():
  with pytest.raises(Unavailable, match="can be restricted to a modality"):
    BUILD(Functions(*[None] * 3, ("a", "b")), available="a")


@pytest.mark.parametrize(
  "options, message",
  [
    ({"privileged": "b"}, "available and privileged must differ, both are 'b'"),
    ({"privileged": "x"}, "modality 'x' not in the model; available: a, b"),
    ({"match": "x"}, "unknown match 'x'"),
    ({"logits": "x"}, "unknown kind 'x'"),
    ({"temperature": 0.0}, "temperature must be positive"),
    ({"mmd_weight": -1.0}, "mmd_weight must not be negative, got -1.0"),
    ({"rec_weight": float("nan")}, "rec_weight must not be negative"),
    ({"share": 1.0}, r"share must lie in \(0, 1\), got 1.0"),
  ],
)
def test_bad_settings_are_refused_at_the_door(options, message):
  with pytest.raises(ValueError, match=message):
    BUILD(_small.model(), **{"available": "b", **options})
