"""Methods made of methods: phases in turn, parts side by side, rates that are kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import metrics, objectives, tasks, train
from mmfuse.core import Functions, Method, Outputs, Phase, State, Unavailable
from mmfuse.tree import FUSED

from . import _problems


def supervised(name="train", objective=objectives.fused, **options):
  model = _problems.late_fusion(norm="none", dropout=0.0)
  return train.supervised(model, objective, train.sgd(0.1), name=name, **options)


def hook(state, splits, key, clock):
  """Counts its calls, and the rows of the training split."""
  del key, clock
  return train.remember(state, calls=state.memory["calls"] + len(splits["train"].label))


def chosen(state, splits, key, clock):
  del splits, key, clock
  return np.arange(4 + int(state.memory["calls"]) % 3), None


def hooked(method):
  (phase,) = method.phases
  phase = phase._replace(begin=hook, epoch_end=hook, rows=chosen)
  counting = lambda state, num_rows: {"calls": jnp.int32(num_rows)}
  return train.with_memory(method._replace(phases=(phase,)), counting)


# One after the other.


def test_then_joins_states_shares_out_the_epochs_and_keeps_who_predicts():
  first, second = supervised("teacher", objectives.unimodal), supervised()
  both = train.then(first, second, 0.25)
  state = train.initial(both, jax.random.key(0), _problems.batch())
  assert sorted(state.opt) == ["teacher", "train"]
  assert sorted(state.memory) == ["objective", "objective/teacher"]
  assert [(p.name, p.share) for p in both.phases] == [("teacher", 0.25), ("train", 0.75)]
  assert [p.share for p in train.then(first, second).phases] == [1.0, 1.0]
  assert both.predict == second.predict and both.phases[0].predict == first.predict
  _problems.same(state.params, train.initial(second, jax.random.key(0), _problems.batch()).params)


def test_then_refuses_two_phases_of_one_name_and_an_impossible_share():
  with pytest.raises(ValueError, match="two phases are called 'train'"):
    train.then(supervised(), supervised())
  with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), got 1"):
    train.then(supervised("a"), supervised("b"), 1)


def test_with_share_keeps_the_proportion_of_the_phases():
  phases = tuple(Phase(n, None, share=s) for n, s in (("a", 1.0), ("b", 3.0)))
  found = train.with_share(Method(None, None, phases), 0.4)
  np.testing.assert_allclose([p.share for p in found.phases], [0.1, 0.3])


def test_memory_is_extended_replaced_and_restored():
  method = train.with_memory(supervised(), lambda state, num_rows: {"rows": jnp.int32(num_rows)})
  state = train.initial(method, jax.random.key(0), _problems.batch(), 77)
  assert int(state.memory["rows"]) == 77 and "objective" in state.memory
  kept = train.weights_of(state)
  other = train.remember(state._replace(params={}, stats={}), rows=1)
  assert other.memory["rows"] == 1 and "objective" in other.memory
  _problems.same(train.restore(other, kept).params, state.params)


# Side by side.


def mean(outputs, mask):
  del mask
  return outputs["x"]._replace(logits=(outputs["x"].logits + outputs["y"].logits) / 2)


def test_a_part_trains_as_it_does_alone_and_moves_nothing_else():
  """Two architectures; steps, hooks, rows and predictions are those of the methods themselves."""
  x, y = hooked(supervised()), supervised("own", objectives.unimodal)
  method = train.parts({"x": x, "y": y}, predict=mean)
  assert [p.name for p in method.phases] == ["x/train", "y/own"]
  assert [p.share for p in method.phases] == [0.5, 0.5]
  given, key = _problems.batch(), jax.random.key(3)
  state = train.initial(method, jax.random.key(0), given, 50)
  assert sorted(state.opt) == ["x/train", "y/own"] and sorted(state.params) == ["x", "y"]
  assert _differ(state.params["x"], state.params["y"])  # of one model: each has a key of its own

  first = method.phases[0]
  after, log = _problems.compiled(first.step)(state, given, key, _problems.clock())
  alone = State(state.params["x"], {}, {"train": state.opt["x/train"]}, state.memory["x"])
  want, wanted = _problems.compiled(x.phases[0].step)(alone, given, key, _problems.clock())
  _problems.same((after.params["x"], after.opt["x/train"]), (want.params, want.opt["train"]))
  _problems.same(log, wanted)
  _problems.same(after.params["y"], state.params["y"])
  assert _differ(after.params["x"], state.params["x"])

  splits = {"train": _problems.tiny(rows=24).train}
  begun = first.begin(state, splits, key, None)
  assert int(begun.memory["x"]["calls"]) == 50 + 24 and jax.tree.structure(
    begun
  ) == jax.tree.structure(state)
  assert len(first.rows(begun, splits, key, None)[0]) == 4 + 74 % 3
  assert method.phases[1].begin is None
  own = first.predict(state, given.inputs, given.mask)
  _problems.same(own.logits, x.predict(alone, given.inputs, given.mask).logits)
  other = method.phases[1].predict(state, given.inputs, given.mask).logits
  both = method.predict(state, given.inputs, given.mask).logits
  np.testing.assert_allclose(both, (own.logits + other) / 2, rtol=1e-6)


def _differ(a, b):
  return any(bool((x != y).any()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def distance(outputs, batch, frozen, **extra):
  """A student's loss against a teacher that it may read."""
  del extra
  said = TEACHER.predict(frozen["teacher"], batch.inputs, batch.mask)
  rows = jnp.square(outputs.logits - said.logits).mean(1)
  return {FUSED: objectives.weighted_mean(rows, batch.weight)}


TEACHER = supervised()


def student_and_teacher():
  student = supervised("student", distance)
  return train.parts(
    {"teacher": TEACHER, "student": student}, predict="student", freeze=("teacher",)
  )


def test_a_student_reads_a_frozen_teacher_and_does_not_move_it():
  """The objective's value by hand; the part's state is what it was but for the student's own."""
  method = student_and_teacher()
  assert {"diagnose", "student/diagnose", "teacher/diagnose"} <= set(method.functions)
  given = _problems.batch()
  state = train.initial(method, jax.random.key(0), given)
  after, log = _problems.compiled(method.phases[1].step)(
    state, given, jax.random.key(1), _problems.clock()
  )
  taught = method.phases[0].predict(state, given.inputs, given.mask).logits
  said = method.predict(state, given.inputs, given.mask).logits
  want = np.average(np.square(said - taught).mean(1), weights=given.weight)
  np.testing.assert_allclose(log["loss/fused"], want, rtol=1e-5)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  _problems.same(after.params["teacher"], state.params["teacher"])
  assert _differ(after.params["student"], state.params["student"])


@pytest.mark.slow
def test_parts_run_through_fit_with_several_seeds():
  """Both phases are logged under their names; two seeds together are two seeds apart."""
  method = train.parts(
    {"x": supervised(), "y": supervised("own", objectives.unimodal)}, predict=mean
  )
  run = lambda **how: train.fit(
    method, _problems.tiny(), epochs=2, batch_size=12, diagnose=False, loop="scan", **how
  )
  together, apart = run(seeds=2, together=True), run(seeds=2, together=False)
  assert [e["phase"] for e in together.logs[0].history] == ["x/train", "y/own"]
  _problems.close(together.state(1).params, apart.state(1).params, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: student_and_teacher(), lambda: readout()])
def test_composed_methods_keep_the_contract(make):
  train.check_method(make(), _problems.tiny(), full=True)


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"methods": {}}, "at least one method"),
    ({"methods": {"a/b": supervised()}}, "no '/'"),
    ({"predict": "z"}, "no part 'z'; there are: x"),
    ({"freeze": ("q",)}, "no part 'q'"),
  ],
)
def test_parts_refuses(changes, words):
  options = {"methods": {"x": supervised()}, "predict": "x", **changes}
  with pytest.raises(ValueError, match=words):
    train.parts(options.pop("methods"), **options)


# A head on what needs no label.


def init_mean(key, batch, num_rows):
  del key, num_rows
  width = batch.inputs["a"].shape[1] + batch.inputs["b"].shape[1]
  return {"params": {"shift": jnp.ones(width)}}, {"seen": jnp.int32(0)}


def centre(variables, batch, key, clock, memory):
  """The shift becomes minus the mean of the rows."""
  del key, clock
  rows = jnp.square(shifted(variables, batch.inputs)).mean(1)
  loss = objectives.weighted_mean(rows, batch.weight)
  return loss, train.Aux(memory={"seen": memory["seen"] + 1})


def shifted(variables, inputs):
  flat = jnp.concatenate([inputs["a"], inputs["b"]], 1)
  return flat + variables["params"]["shift"][None]


def say_shifted(variables, memory, inputs, mask):
  del memory, mask
  h = shifted(variables, inputs)
  return Outputs(None, aux={"shifted": h, "loss": -jnp.square(h).mean(1)})


def features(outputs):
  return outputs.aux["shifted"]


def unsupervised():
  metric = metrics.row_mean("loss")
  return train.minimise(
    init_mean, centre, train.sgd(0.3), predict=say_shifted, name="pre", metric=metric
  )


def readout():
  tx = train.sgd(1.0, searched=False)
  return train.with_head(unsupervised(), features, _problems.CLASSES, tx, 0.5)


def test_an_unsupervised_method_becomes_a_classifier_of_any_subset():
  method = readout()
  assert [(p.name, p.share) for p in method.phases] == [("pre", 0.5), ("head", 0.5)]
  splits = _problems.tiny(rows=60, validation=40)
  result = train.fit(method, splits, epochs=40, batch_size=20, learning_rate=0.3, diagnose=False)
  state, log = result.state(), result.logs[0]
  assert log.diverged_at is None and int(state.memory["seen"]) == 20 * 3
  first = [e["validation"]["fused"] for e in log.history if e["phase"] == "pre"]
  assert set(first[0]) == {"loss"} and first[-1]["loss"] >= first[0]["loss"]
  metric = tasks.metric_of(splits)
  scores = train.evaluate(method, state, splits.validation, metric=metric)
  assert scores["fused"]["accuracy"] > 0.75 and scores["a"]["accuracy"] > 0.6
  only_a = train.evaluate(method, state, splits.validation, metric=metric, present=["a"])
  assert only_a["fused"] == only_a["a"]  # one head, whatever is there
  rates = [v for p, v in jax.tree_util.tree_flatten_with_path(state.opt)[0] if "rate" in str(p)]
  np.testing.assert_allclose(sorted(map(float, rates)), [0.3, 1.0])


def test_with_head_refuses():
  with pytest.raises(ValueError, match="share must lie"):
    train.with_head(unsupervised(), features, 3, train.sgd(), 0.0)
  wide = train.with_head(unsupervised(), lambda o: o.aux["loss"], 3, train.sgd())
  with pytest.raises(ValueError, match=r"features must be one array \[B, H\]"):
    train.initial(wide, jax.random.key(0), _problems.batch())
  taken = unsupervised()._replace(
    init=lambda *_: State({"fused": jnp.ones(1)}, {}, {}, {"seen": jnp.int32(0)})
  )
  with pytest.raises(ValueError, match="'fused', the place of the head"):
    train.initial(
      train.with_head(taken, features, 3, train.sgd()), jax.random.key(0), _problems.batch()
    )


# Wrapped models.


def double(model, variables, features, mask, *, train, rngs=None):
  outputs, stats = model.heads(variables, features, mask, train=train, rngs=rngs)
  return outputs._replace(logits=outputs.logits * variables["params"]["scale"]), stats


def with_scale(model, key, inputs, mask):
  variables = model.init(key, inputs, mask)
  return {**variables, "params": {**variables["params"], "scale": jnp.float32(2.0)}}


def test_a_wrapped_model_delegates_all_but_what_is_replaced():
  model = _problems.late_fusion(3)
  given = _problems.batch(3)
  wrapped = train.Wrapped(model, init_fn=with_scale, heads_fn=double, own="scale")
  assert wrapped == train.Wrapped(model, init_fn=with_scale, heads_fn=double, own="scale")
  assert hash(wrapped) == hash(dataclasses.replace(wrapped))
  assert wrapped.restrict(("a", "b")).modalities == ("a", "b")
  inner = train.supervised(model, objectives.fused)
  outer = train.supervised(wrapped, objectives.fused)
  states = [train.initial(m, jax.random.key(0), given) for m in (inner, outer)]
  assert set(states[1].params) - set(states[0].params) == {"scale"}
  plain, doubled = (m.predict(s, given.inputs, given.mask) for m, s in zip((inner, outer), states))
  np.testing.assert_allclose(doubled.logits, 2 * plain.logits, rtol=1e-6)
  _problems.same(doubled.unimodal_logits, plain.unimodal_logits)
  whole = Functions(model.init, model.encode, model.heads, model.modalities)
  with pytest.raises(Unavailable, match="cannot be restricted"):
    train.Wrapped(whole).restrict(("a",))


def test_a_frozen_models_encoders_and_statistics_stay():
  method = train.supervised(
    train.frozen(_problems.late_fusion()), objectives.fused, train.heads_only(train.sgd(0.1))
  )
  before, after, _ = _problems.one_step(method, _problems.batch())
  _problems.same((after.params["a"], after.stats), (before.params["a"], before.stats))
  assert _differ(after.params["heads"], before.params["heads"])
